//! The users of a pod that are not its node's: what CRI says of them.

use cri::v1::{IdMapping, NamespaceMode, PodSandboxConfig, UserNamespace};
use cri::{Error, Result};

use crate::sandbox::namespace_options;
use crate::shim::protocol::Users;

/// One range each, of which the first is 0 in the pod; the error is a field's.
pub(crate) fn of(uids: &[IdMapping], gids: &[IdMapping]) -> std::result::Result<Users, String> {
    let range = |name: &str, mappings: &[IdMapping]| match mappings {
        [one] if one.container_id == 0 && one.length > 0 => Ok((one.host_id, one.length)),
        [_] => Err(format!("{name}: must map id 0 of the pod")),
        _ => Err(format!("{name}: must be one mapping, not {}", mappings.len())),
    };
    let ((uid, uids), (gid, gids)) = (range("uids", uids)?, range("gids", gids)?);
    Ok(Users { uid, uids, gid, gids })
}

fn asked(options: Option<&UserNamespace>) -> std::result::Result<Option<Users>, String> {
    let Some(options) = options else { return Ok(None) };
    match options.mode() {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err("mode: there can be no mappings with mode NODE".into()),
        NamespaceMode::Pod => of(&options.uids, &options.gids).map(Some),
        other => Err(format!("mode: {} is none of POD and NODE", other.as_str_name())),
    }
}

/// Those of a pod; none when it has its node's.
pub(crate) fn of_pod(config: &PodSandboxConfig) -> Result<Option<Users>> {
    asked(namespace_options(config).userns_options.as_ref()).map_err(|error| {
        Error::invalid_argument(format!(
            "config.linux.security_context.namespace_options.userns_options.{error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping {
            host_id,
            container_id,
            length,
        }
    }

    #[test]
    fn one_range_from_root_on() {
        let options = |mode: NamespaceMode, mappings: &[IdMapping]| {
            let options = UserNamespace {
                mode: mode.into(),
                uids: mappings.to_vec(),
                gids: mappings.to_vec(),
            };
            asked(Some(&options))
        };
        let one = [mapping(0, 1000, 70000)];
        let users = options(NamespaceMode::Pod, &one).unwrap_or_default();
        assert_eq!(users.and_then(|users| users.outer_uid(33)), Some(1033));
        assert_eq!(users.and_then(|users| users.outer_gid(70000)), None);
        assert_eq!(asked(None), Ok(None));
        assert_eq!(options(NamespaceMode::Node, &[]), Ok(None));
        for (mode, mappings, error) in [
            (NamespaceMode::Node, &one[..], "there can be no mappings"),
            (NamespaceMode::Pod, &[], "must be one mapping, not 0"),
            (
                NamespaceMode::Pod,
                &[mapping(0, 1, 9), mapping(9, 20, 9)],
                "must be one mapping, not 2",
            ),
            (NamespaceMode::Pod, &[mapping(1, 1000, 70000)], "must map id 0"),
            (NamespaceMode::Container, &[], "CONTAINER is none of"),
            (NamespaceMode::Target, &[], "TARGET is none of"),
        ] {
            let said = options(mode, mappings).err().unwrap_or_default();
            assert!(said.contains(error), "{said}");
        }
    }
}
