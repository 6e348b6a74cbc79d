//! UpdateContainerResources, and the reopening of a log.

use cri::v1::{
    ReopenContainerLogRequest, ReopenContainerLogResponse, UpdateContainerResourcesRequest,
    UpdateContainerResourcesResponse,
};
use cri::{Error, Result};
use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::LinuxResources;

use crate::record::Status;
use crate::runtime::Inner;
use crate::shim::protocol::Request;
use crate::spec;

impl Inner {
    pub(crate) async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        let container = self.known_container(&request.container_id)?;
        let _turn = container.verbs.lock().await;
        let wish = request
            .linux
            .ok_or_else(|| Error::invalid_argument("linux: Required value"))?;
        let failed = |err: String| {
            Error::unknown(format!(
                "failed to update resources of container {:?}: {err}",
                container.id
            ))
        };
        let resources = spec::resources(&wish, &self.host).map_err(|err| failed(err.to_string()))?;
        let status = container.status.borrow().clone();
        match status {
            Status::Exited(_) => return Err(failed("container is not running".into())),
            Status::Running { .. } => apply(&container.cgroup(), &container.id, &resources).map_err(failed)?,
            Status::Created => {
                let path = container.dir.join("config.json");
                let change = || -> oci_spec::Result<()> {
                    let mut spec = oci_spec::runtime::Spec::load(&path)?;
                    if let Some(linux) = spec.linux_mut() {
                        let devices = linux.resources().as_ref().and_then(|old| old.devices().clone());
                        let mut resources = resources.clone();
                        resources.set_devices(devices);
                        linux.set_resources(Some(resources));
                    }
                    spec.save(&path)
                };
                change().map_err(|err| failed(err.to_string()))?;
            }
        }
        *container.resources.lock() = Some(wish);
        container.save();
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(crate) async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse> {
        let container = self.known_container(&request.container_id)?;
        let shim = container
            .sandbox
            .shim()
            .filter(|_| matches!(*container.status.borrow(), Status::Running { .. }))
            .ok_or_else(|| Error::failed_precondition("container is not running"))?;
        shim.run(Request::ReopenLog {
            id: container.id.clone(),
        })
        .await
        .map_err(|err| {
            Error::unknown(format!(
                "failed to reopen the log of container {:?}: {err}",
                container.id
            ))
        })?;
        Ok(ReopenContainerLogResponse {})
    }
}

fn apply(cgroup: &str, name: &str, resources: &LinuxResources) -> std::result::Result<(), String> {
    let manager = create_cgroup_manager(CgroupConfig {
        cgroup_path: cgroup.into(),
        systemd_cgroup: false,
        container_name: name.to_owned(),
    })
    .map_err(|err| err.to_string())?;
    let options = ControllerOpt {
        resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&options).map_err(|err| err.to_string())
}
