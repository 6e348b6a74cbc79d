//! gRPC's health service (`grpc.health.v1.Health`).

use std::time::Duration;

use k8s_openapi::api::core::v1::GRPCAction;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Endpoint;

use super::Outcome;
use super::place::join;
use crate::words;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether the service serves.
pub async fn check(action: &GRPCAction, ip: &str, timeout: Duration) -> Outcome {
    match serves(action, ip, timeout).await {
        Ok(()) => Outcome::Success,
        Err(error) => Outcome::Failure(error),
    }
}

async fn serves(action: &GRPCAction, ip: &str, timeout: Duration) -> Result<(), String> {
    const SERVING: i32 = 1;
    let deadline = Instant::now() + timeout;
    let within = words::duration(timeout);
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
    let address = join(ip, port);
    let unconnected = || {
        let address = words::quote(&address);
        format!("timeout: failed to connect service {address} within {within}: context deadline exceeded")
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent("kube-probe/1.36"))
        .map_err(|error| error.to_string())?;
    // Upstream goes on trying until the time is up; what refuses now is asked again with the next probe.
    let channel = timeout_at(deadline, endpoint.connect())
        .await
        .map_err(|_| unconnected())?
        .map_err(|_| unconnected())?;
    let call = async {
        let mut client = tonic::client::Grpc::new(channel);
        client
            .ready()
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> =
            tonic_prost::ProstCodec::default();
        let service = action.service.clone().unwrap_or_default();
        client
            .unary(tonic::Request::new(HealthCheckRequest { service }), path, codec)
            .await
    };
    let answer = match timeout_at(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(tonic::Status::deadline_exceeded("")),
    };
    match answer.map(|answer| answer.into_inner().status) {
        Ok(SERVING) => Ok(()),
        Ok(status) => Err(format!("service unhealthy (responded with {:?})", name(status))),
        Err(status) if status.code() == tonic::Code::Unimplemented => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            Err(format!("timeout: health rpc did not complete within {within}"))
        }
        Err(status) => Err(format!("error: health rpc probe failed: {}", cri::Error::from(status))),
    }
}

fn name(status: i32) -> String {
    match status {
        0 => "UNKNOWN".into(),
        2 => "NOT_SERVING".into(),
        3 => "SERVICE_UNKNOWN".into(),
        other => other.to_string(),
    }
}
