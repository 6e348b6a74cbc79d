//! The forms of answers, and what is served beside resources.

use std::io::Read as _;

use apiserver::Body;
use http::Method;
use serde_json::json;

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn objects_are_shown_as_tables_metadata_and_yaml() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");
    for path in [CONFIG_MAPS, &path] {
        let table = cluster.get_as(path, TABLE).await.json();
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["columnDefinitions"][1]["name"], "Data");
        assert_eq!(table["rows"][0]["cells"][0], "a");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
    let metadata = cluster.get_as(&path, METADATA).await.json();
    assert_eq!(
        (metadata["kind"].as_str(), metadata.get("data")),
        (Some("PartialObjectMetadata"), None)
    );
    let list = cluster.get_as(CONFIG_MAPS, METADATA).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let yaml = cluster.get_as(&path, "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.bytes.starts_with(b"apiVersion: v1\n"), "{:?}", yaml.bytes);
    let pretty = cluster.get(&format!("{path}?pretty=true")).await;
    assert!(pretty.bytes.starts_with(b"{\n  \""), "{:?}", pretty.bytes);
    let refused = cluster.get_as(&path, "text/html").await;
    assert_eq!(refused.code, 406);
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(events.next().await.unwrap()["object"]["kind"], "ConfigMap");
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let cluster = Cluster::new().await;
    let mut object = config_map("a");
    object["data"]["x"] = json!("y".repeat(200 << 10));
    cluster.post(CONFIG_MAPS, &object).await;
    let plain = cluster.get(CONFIG_MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let zipped = cluster
        .send(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], Body::empty())
        .await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.bytes.len() < 10 << 10);
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&zipped.bytes[..])
        .read_to_end(&mut unzipped)
        .unwrap();
    assert_eq!(unzipped, plain.bytes);
}

#[tokio::test]
async fn bodies_are_read_in_the_forms_that_there_are() {
    let cluster = Cluster::new().await;
    let send = async |kind: &str, body: &str| {
        let body = Body::from(body.to_owned());
        cluster
            .send(Method::POST, CONFIG_MAPS, &[("content-type", kind)], body)
            .await
    };
    let yaml = send("application/yaml", "metadata:\n  name: y\ndata:\n  a: b\n").await;
    assert_eq!(yaml.code, 201, "{}", yaml.message());
    assert_eq!(send("text/plain", "x").await.code, 415);
    let malformed = send("application/json", "{").await;
    assert_eq!(
        (malformed.code, malformed.message().as_str()),
        (
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)"
        )
    );
    let path = format!("{CONFIG_MAPS}/y");
    for (kind, patch, want) in [
        (
            "merge-patch",
            r#"{"data":{"a":1}"#,
            "error decoding patch: unexpected end of JSON input",
        ),
        (
            "strategic-merge-patch",
            r#"{"data":{"a":1}}"#,
            r#" "" is invalid: patch: Invalid value: "map[data:map[a:1]]": cannot convert int64 to string"#,
        ),
        (
            "strategic-merge-patch",
            r#"{"data":"a"}"#,
            r#" "" is invalid: patch: Invalid value: "map[data:a]": cannot restore map from string"#,
        ),
    ] {
        let kind = format!("application/{kind}+json");
        let headers = [("content-type", kind.as_str())];
        let refused = cluster
            .send(Method::PATCH, &path, &headers, patch.to_owned().into())
            .await;
        assert_eq!(refused.message(), want, "{patch}");
    }
    // A patch is JSON, whatever else objects may be.
    let yaml = [("content-type", "application/merge-patch+json")];
    let refused = cluster
        .send(Method::PATCH, &path, &yaml, "data: {a: c}".to_owned().into())
        .await;
    assert_eq!(refused.code, 400, "{}", refused.message());
    let listed = cluster.get(&format!("{CONFIG_MAPS}?timeoutSeconds=soon")).await;
    assert_eq!(
        (listed.code, listed.message().as_str()),
        (400, "strconv.ParseInt: parsing \"soon\": invalid syntax")
    );
    let unknown = send("application/json", r#"{"metadata":{"name":"u"},"dota":{}}"#).await;
    assert_eq!(unknown.code, 201);
    assert!(
        unknown.headers["warning"].to_str().unwrap().contains("unknown field"),
        "{:?}",
        unknown.headers
    );
    let path = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let strict = cluster
        .post(&path, &json!({"metadata": {"name": "s"}, "dota": {}}))
        .await;
    assert_eq!(strict.code, 400);
    assert!(
        strict
            .message()
            .contains("strict decoding error: unknown field \"dota\""),
        "{}",
        strict.message()
    );
    let large = format!(
        r#"{{"metadata":{{"name":"l"}},"data":{{"x":"{}"}}}}"#,
        "y".repeat(3 << 20)
    );
    let refused = send("application/json", &large).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (413, "Request entity too large: limit is 3145728")
    );
    // What kubectl's typed commands send: a ConfigMap named "p", in protobuf.
    let protobuf = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01p";
    let sent = cluster
        .send(
            Method::POST,
            CONFIG_MAPS,
            &[("content-type", "application/vnd.kubernetes.protobuf")],
            protobuf.to_vec().into(),
        )
        .await;
    assert_eq!(sent.code, 201, "{}", sent.message());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/p")).await.code, 200);
}

#[tokio::test]
async fn discovery_and_documents_are_served() {
    let cluster = Cluster::new().await;
    for (path, field, value) in [
        ("/api", "kind", "APIVersions"),
        ("/apis", "kind", "APIGroupList"),
        ("/apis/scheduling.k8s.io", "kind", "APIGroup"),
        ("/api/v1", "kind", "APIResourceList"),
        ("/apis/scheduling.k8s.io/v1", "kind", "APIResourceList"),
        ("/version", "minor", "36"),
        ("/openapi/v2", "swagger", "2.0"),
        ("/openapi/v3/api/v1", "openapi", "3.0.0"),
    ] {
        let found = cluster.get(path).await;
        assert_eq!((found.code, found.json()[field].as_str()), (200, Some(value)), "{path}");
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let first = cluster.get_as("/apis", aggregated).await;
    assert_eq!(first.json()["kind"], "APIGroupDiscoveryList");
    let tag = first.headers["etag"].to_str().unwrap();
    let known = [("accept", aggregated), ("if-none-match", tag)];
    assert_eq!(
        cluster.send(Method::GET, "/apis", &known, Body::empty()).await.code,
        304
    );
    let index = cluster.get("/openapi/v3").await.json();
    let address = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = cluster.get(address).await;
    assert!(
        document.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let v2 = cluster
        .get_as(
            "/openapi/v2",
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        )
        .await;
    assert_eq!(v2.code, 200);
    assert_eq!(cluster.get("/readyz").await.bytes, "ok");
    assert!(
        cluster
            .get("/livez?verbose")
            .await
            .bytes
            .ends_with(b"livez check passed\n")
    );
    for path in [
        "/nope",
        "/apis/nope",
        "/apis/nope/v1/things",
        "/api/v1/things",
        "/api/v1/pods/x",
    ] {
        let missing = cluster.get(path).await;
        assert_eq!(
            missing.message(),
            "the server could not find the requested resource",
            "{path}"
        );
        assert_eq!(missing.code, 404);
    }
    let refused = cluster.send(Method::PUT, CONFIG_MAPS, &[], Body::empty()).await;
    assert_eq!(refused.code, 405);
}

#[tokio::test]
async fn reviews_say_who_one_is_and_what_one_may() {
    let cluster = Cluster::new().await;
    let who = cluster
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}))
        .await
        .json();
    assert_eq!(who["status"]["userInfo"]["username"], "admin");
    let may = json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}});
    let may = cluster
        .post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &may)
        .await
        .json();
    assert_eq!(may["status"]["allowed"], true);
    let token = json!({"spec": {"token": "secret"}});
    let token = cluster
        .post("/apis/authentication.k8s.io/v1/tokenreviews", &token)
        .await
        .json();
    assert_eq!(token["status"]["user"]["username"], "admin");
}
