//! Tables of what CRI asks and OCI gets.

#![allow(clippy::unwrap_used)] // a failed call fails the test

use std::path::{Path, PathBuf};

use caps::Capability;
use cri::v1::{
    Capability as CriCapability, ContainerConfig, HugepageLimit, IdMapping, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, Mount, MountPropagation,
    NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile,
};
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccompAction};

use super::*;
use crate::shim::protocol::{Spread, Stage};

struct Case {
    config: ContainerConfig,
    image: Image,
    accounts: Accounts,
    host: Host,
    pid_of: Option<i32>,
    profile: Option<String>,
    app_armor: Option<&'static str>,
    devices: Vec<(LinuxDevice, String)>,
    volumes: Vec<ImageVolume>,
    users: Option<PodUsers>,
}

impl Case {
    fn new() -> Self {
        Self {
            config: ContainerConfig {
                linux: Some(LinuxContainerConfig {
                    security_context: Some(LinuxContainerSecurityContext {
                        namespace_options: Some(NamespaceOption {
                            pid: NamespaceMode::Container.into(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
            image: Image {
                entrypoint: strings(&["/entry"]),
                command: strings(&["cmd"]),
                env: strings(&["PATH=/image", "A=image"]),
                ..Default::default()
            },
            accounts: Accounts {
                passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbad line\n".into(),
                group: "root:x:0:\nweb:x:34:\nmail:x:8:web,other\nlogs:x:9:other\n".into(),
            },
            host: Host {
                controllers: strings(&["cpu", "memory", "pids"]),
                capabilities: caps::all(),
                ..Default::default()
            },
            pid_of: None,
            profile: None,
            app_armor: None,
            devices: Vec::new(),
            volumes: Vec::new(),
            users: None,
        }
    }

    fn context(&mut self) -> &mut LinuxContainerSecurityContext {
        self.config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
    }

    fn spec(&self) -> Result<Spec, SpecError> {
        self.specified().map(|specified| specified.spec)
    }

    fn seccomp(&self) -> Option<oci_spec::runtime::LinuxSeccomp> {
        self.specified().unwrap().confinement.seccomp
    }

    fn specified(&self) -> Result<Specified, SpecError> {
        let files = PodFiles {
            rootfs: "/c/rootfs".into(),
            hosts: "/s/hosts".into(),
            hostname: "/s/hostname".into(),
            hostname_text: "pod".into(),
            resolv_conf: "/s/resolv.conf".into(),
            shm: "/s/shm".into(),
        };
        spec(&Request {
            config: &self.config,
            image: &self.image,
            accounts: &self.accounts,
            host: &self.host,
            cgroup: Path::new("/kubepods/pod1/c"),
            layers: &strings(&["0", "1"]),
            volumes: &self.volumes,
            files: &files,
            pid_of: self.pid_of,
            devices: &self.devices,
            seccomp_profile: self.profile.as_deref(),
            app_armor: self.app_armor,
            users: self.users.as_ref(),
        })
    }

    fn process(&self) -> oci_spec::runtime::Process {
        self.spec().unwrap().process().clone().unwrap()
    }

    fn linux(&self) -> Linux {
        self.spec().unwrap().linux().clone().unwrap()
    }

    fn mounts(&self) -> Vec<(String, String, String)> {
        self.spec()
            .unwrap()
            .mounts()
            .iter()
            .flatten()
            .map(|mount| {
                (
                    mount.destination().display().to_string(),
                    mount.source().as_ref().unwrap().display().to_string(),
                    mount.options().clone().unwrap_or_default().join(","),
                )
            })
            .collect()
    }

    fn options(&self, destination: &str) -> String {
        self.mounts()
            .into_iter()
            .find(|(at, ..)| at == destination)
            .map(|(.., options)| options)
            .unwrap()
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

#[test]
fn commands_and_arguments_replace_the_images() {
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &[], &["/entry", "cmd"]),
        (&[], &["arg"], &["/entry", "arg"]),
        (&["run"], &[], &["run"]),
        (&["run"], &["arg"], &["run", "arg"]),
    ];
    for (command, args, expected) in cases {
        let mut case = Case::new();
        case.config.command = strings(command);
        case.config.args = strings(args);
        assert_eq!(case.process().args().as_ref().unwrap(), &strings(expected));
    }
    let mut case = Case::new();
    case.image = Image::default();
    assert_eq!(case.spec().unwrap_err(), SpecError::NoCommand);
}

#[test]
fn the_environment_is_the_images_then_the_pods() {
    let mut case = Case::new();
    case.config.envs = vec![
        KeyValue {
            key: "A".into(),
            value: "pod=1".into(),
        },
        KeyValue {
            key: "B".into(),
            value: "".into(),
        },
    ];
    let expected = strings(&["PATH=/image", "HOME=/root", "HOSTNAME=pod", "A=pod=1", "B="]);
    assert_eq!(case.process().env().as_ref().unwrap(), &expected);
    case.config.tty = true;
    case.image.env = Vec::new();
    let env = case.process().env().clone().unwrap();
    assert!(env[0].starts_with("PATH=/usr/local/sbin:"), "{env:?}");
    assert!(env.contains(&"TERM=xterm".to_owned()), "{env:?}");
}

#[test]
fn the_directory_is_the_pods_else_the_images() {
    for (pod, image, expected) in [
        ("", "", "/"),
        ("", "/image", "/image"),
        ("/pod", "/image", "/pod"),
        ("", "srv", "/srv"),
    ] {
        let mut case = Case::new();
        case.config.working_dir = pod.into();
        case.image.working_dir = image.into();
        assert_eq!(case.process().cwd(), Path::new(expected));
    }
}

#[test]
fn users_are_numbers_or_names() {
    type Change = fn(&mut Case);
    type Numbers = (u32, u32, &'static [u32]);
    let cases: &[(Change, Numbers)] = &[
        (|_| {}, (0, 0, &[0])),
        (|case| case.image.user = "web".into(), (33, 34, &[34, 8])),
        (|case| case.image.user = "33".into(), (33, 34, &[34, 8])),
        (|case| case.image.user = "web:mail".into(), (33, 8, &[8])),
        (|case| case.image.user = "77:88".into(), (77, 88, &[88])),
        (|case| case.image.user = "77".into(), (77, 0, &[0])),
        (|case| case.context().run_as_user = id(33), (33, 34, &[34, 8])),
        (|case| case.context().run_as_username = "web".into(), (33, 34, &[34, 8])),
        (
            |case| {
                case.image.user = "web".into();
                case.context().run_as_user = id(5);
                case.context().run_as_group = id(6);
                case.context().supplemental_groups = vec![7, 6];
            },
            (5, 6, &[6, 7]),
        ),
        (
            |case| {
                case.image.user = "web".into();
                case.context().supplemental_groups = vec![7];
                case.context().supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
            },
            (33, 34, &[34, 7]),
        ),
    ];
    for (index, (change, (uid, gid, groups))) in cases.iter().enumerate() {
        let mut case = Case::new();
        change(&mut case);
        let process = case.process();
        let user = process.user();
        assert_eq!((user.uid(), user.gid()), (*uid, *gid), "case {index}");
        assert_eq!(user.additional_gids().as_deref(), Some(*groups), "case {index}");
    }
    let mut case = Case::new();
    case.image.user = "nobody".into();
    assert_eq!(case.spec().unwrap_err(), SpecError::UnknownUser("nobody".into()));
    case.context().run_as_group = id(6);
    assert_eq!(case.spec().unwrap_err(), SpecError::GroupWithoutUser(6));
    case.context().run_as_group = None;
    case.image.user = "0:nobody".into();
    assert_eq!(case.spec().unwrap_err(), SpecError::UnknownGroup("nobody".into()));
    case.image.user = "web".into();
    assert!(case.process().env().as_ref().unwrap().contains(&"HOME=/srv".to_owned()));
}

#[test]
fn capabilities_are_added_and_dropped() {
    use oci_spec::runtime::Capability as Spec;
    let mut case = Case::new();
    let set = |case: &Case| case.process().capabilities().clone().unwrap();
    let default = set(&case);
    assert_eq!(default.bounding().as_ref().unwrap().len(), 14);
    assert_eq!(default.effective(), default.bounding());
    assert!(default.inheritable().is_none() && default.ambient().is_none());

    let wish = |add: &[&str], drop: &[&str]| CriCapability {
        add_capabilities: strings(add),
        drop_capabilities: strings(drop),
        ..Default::default()
    };
    case.context().capabilities = Some(wish(&["NET_ADMIN", "cap_sys_time"], &["CHOWN"]));
    let changed = set(&case).bounding().clone().unwrap();
    assert!(changed.contains(&Spec::NetAdmin) && changed.contains(&Spec::SysTime) && !changed.contains(&Spec::Chown));
    case.context().capabilities = Some(wish(&["NET_BIND_SERVICE"], &["ALL"]));
    assert_eq!(set(&case).bounding().clone().unwrap(), [Spec::NetBindService].into());
    case.context().capabilities = Some(wish(&["ALL"], &["MKNOD"]));
    assert_eq!(set(&case).bounding().as_ref().unwrap().len(), caps::all().len() - 1);
    case.context().capabilities = Some(wish(&["FLY"], &[]));
    assert_eq!(case.spec().unwrap_err(), SpecError::UnknownCapability("CAP_FLY".into()));

    case.context().capabilities = None;
    case.context().privileged = true;
    case.host.capabilities = [Capability::CAP_CHOWN].into();
    assert_eq!(set(&case).bounding().clone().unwrap(), [Spec::Chown].into());
}

#[test]
fn without_a_device_controller_nobody_makes_devices() {
    let mut case = Case::new();
    case.host.controllers = Vec::new();
    let bounding = case
        .process()
        .capabilities()
        .clone()
        .unwrap()
        .bounding()
        .clone()
        .unwrap();
    assert!(!bounding.contains(&oci_spec::runtime::Capability::Mknod));
    assert!(case.options("/").contains("nodev"));
}

#[test]
fn the_score_is_one_that_may_be_given() {
    for (wish, floor, expected) in [
        (1000, None, 1000),
        (-997, None, -997),
        (-997, Some(0), 0),
        (5, Some(0), 5),
    ] {
        let mut case = Case::new();
        case.host.oom_score_floor = floor;
        case.config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
            oom_score_adj: wish,
            ..Default::default()
        });
        assert_eq!(case.process().oom_score_adj(), Some(expected));
    }
}

#[test]
fn labels_are_for_machines_that_have_them() {
    let mut case = Case::new();
    let labels = |case: &Case| {
        (
            case.process().selinux_label().clone(),
            case.linux().mount_label().clone(),
        )
    };
    case.host.selinux = true;
    assert_eq!(labels(&case), (None, None), "nobody asks");
    case.context().selinux_options = Some(SeLinuxOption {
        r#type: "spc_t".into(),
        level: "s0:c1,c2".into(),
        ..Default::default()
    });
    assert_eq!(
        labels(&case),
        (
            Some("system_u:system_r:spc_t:s0:c1,c2".into()),
            Some("system_u:object_r:container_file_t:s0:c1,c2".into())
        )
    );
    case.context().privileged = true;
    assert_eq!(labels(&case).0, None);
    case.context().privileged = false;
    case.host.selinux = false;
    assert_eq!(labels(&case), (None, None), "the kernel has none");
}

#[test]
fn the_profile_is_the_processes() {
    let mut case = Case::new();
    assert_eq!(case.process().apparmor_profile(), &None);
    case.app_armor = Some("own");
    assert_eq!(case.process().apparmor_profile().as_deref(), Some("own"));
}

#[test]
fn privileges_are_fixed_only_when_asked() {
    let mut case = Case::new();
    assert_eq!(case.process().no_new_privileges(), None);
    case.context().no_new_privs = true;
    assert_eq!(case.process().no_new_privileges(), Some(true));
}

#[test]
fn namespaces_are_own_or_shared() {
    let pid = |case: &Case| {
        case.linux()
            .namespaces()
            .iter()
            .flatten()
            .find(|namespace| namespace.typ() == LinuxNamespaceType::Pid)
            .map(|namespace| namespace.path().clone())
    };
    let mut case = Case::new();
    assert_eq!(pid(&case), Some(None));
    case.pid_of = Some(7);
    for mode in [NamespaceMode::Pod, NamespaceMode::Target] {
        case.context().namespace_options.as_mut().unwrap().pid = mode.into();
        assert_eq!(pid(&case), Some(Some(PathBuf::from("/proc/7/ns/pid"))));
    }
    case.context().namespace_options.as_mut().unwrap().pid = NamespaceMode::Node.into();
    assert_eq!(pid(&case), None);
}

#[test]
fn a_pods_own_users_find_everything_in_the_bundle() {
    let mut case = Case::new();
    let mapping = |host_id| {
        vec![IdMapping {
            host_id,
            container_id: 0,
            length: 65536,
        }]
    };
    let mut volume = Mount {
        host_path: "/v".into(),
        container_path: "/data".into(),
        readonly: true,
        uid_mappings: mapping(131072),
        gid_mappings: mapping(131072),
        ..Default::default()
    };
    case.config.mounts = vec![volume.clone()];
    assert_eq!(
        case.spec().unwrap_err(),
        SpecError::IdMappedMount("/data".into()),
        "the pod has its node's users"
    );
    case.users = Some(PodUsers {
        users: Users {
            uid: 131072,
            uids: 65536,
            gid: 131072,
            gids: 65536,
        },
        namespace: "/proc/9/ns/user".into(),
        layers: "/images/layers".into(),
    });
    let Specified { spec, staging, .. } = case.specified().unwrap();
    let staging = staging.unwrap();
    assert_eq!(staging.layers, Some(("/images/layers".into(), "layers".into())));
    let staged = |what: &Stage| {
        let found = staging.mounts.iter().find(|staged| staged.what == *what);
        found.map(|staged| staged.target.clone()).unwrap()
    };
    let tree = |source: &str, mapped| Stage::Tree {
        source: source.into(),
        mapped,
        spread: None,
    };
    let root = Stage::Overlay {
        options: strings(&["lowerdir=0:1", "upperdir=upper", "workdir=work", "volatile"]),
    };
    assert_eq!(staged(&root), Path::new("rootfs"));
    let mounts = case.mounts();
    let source = |at: &str| {
        mounts
            .iter()
            .find(|(found, ..)| found == at)
            .map(|(_, source, _)| source.as_str())
    };
    assert_eq!(source("/"), None);
    assert_eq!(source("/proc"), Some("proc"));
    assert_eq!(source("/sys/fs/cgroup/cpu"), Some("/sys/fs/cgroup/cpu/kubepods/pod1/c"));
    for (at, what) in [
        ("/data", tree("/v", true)),
        ("/etc/hostname", tree("/s/hostname", false)),
    ] {
        assert_eq!(source(at), Path::new("/c").join(staged(&what)).to_str(), "{at}");
    }
    assert_eq!(case.options("/data"), "rbind,ro");
    let linux = spec.linux().clone().unwrap();
    let users = linux
        .namespaces()
        .iter()
        .flatten()
        .find(|one| one.typ() == LinuxNamespaceType::User);
    assert_eq!(users.unwrap().path(), &Some(PathBuf::from("/proc/9/ns/user")));

    case.context().run_as_user = id(65536);
    assert_eq!(case.spec().unwrap_err(), SpecError::NotMapped(65536, 0));
    case.context().run_as_user = None;
    volume.uid_mappings = mapping(0);
    case.config.mounts = vec![volume];
    assert_eq!(case.spec().unwrap_err(), SpecError::IdMappedMount("/data".into()));
}

#[test]
fn mounts_come_in_order_and_give_way_to_the_pods() {
    let mut case = Case::new();
    let mount = |host: &str, container: &str| Mount {
        host_path: host.into(),
        container_path: container.into(),
        ..Default::default()
    };
    let mut readonly = mount("/v/ro", "/data/ro");
    readonly.readonly = true;
    let mut deep = readonly.clone();
    deep.container_path = "/data/deep".into();
    deep.recursive_read_only = true;
    case.config.mounts = vec![mount("/k/hosts", "/etc/hosts"), readonly, deep, mount("/v", "/data")];
    let mounts = case.mounts();
    let at: Vec<_> = mounts.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(at[0], "/");
    let place = |wanted: &str| at.iter().position(|at| *at == wanted).unwrap();
    assert!(place("/data") < place("/data/ro") && place("/dev") < place("/dev/shm"));
    assert!(place("/sys/fs/cgroup") < place("/sys/fs/cgroup/memory"));
    assert_eq!(at.iter().filter(|at| **at == "/etc/hosts").count(), 1);
    assert_eq!(mounts[place("/etc/hosts")].1, "/k/hosts");
    assert_eq!(case.options("/data"), "rbind,rw");
    assert_eq!(case.options("/data/ro"), "rbind,ro");
    assert_eq!(case.options("/data/deep"), "rbind,rro");
    for (readonly, propagation) in [
        (false, MountPropagation::PropagationPrivate),
        (true, MountPropagation::PropagationHostToContainer),
    ] {
        let mut wrong = Case::new();
        wrong.config.mounts = vec![mount("/v", "/data")];
        wrong.config.mounts[0].recursive_read_only = true;
        wrong.config.mounts[0].readonly = readonly;
        wrong.config.mounts[0].propagation = propagation.into();
        assert_eq!(wrong.spec().unwrap_err(), SpecError::RecursiveReadOnly("/data".into()));
    }
    assert_eq!(case.options("/"), "lowerdir=0:1,upperdir=upper,workdir=work,volatile");
    assert!(case.options("/sys").ends_with(",ro") && case.options("/sys/fs/cgroup/memory").ends_with(",ro"));
    assert_eq!(
        mounts[place("/sys/fs/cgroup/memory")].1,
        "/sys/fs/cgroup/memory/kubepods/pod1/c"
    );
    case.context().privileged = true;
    assert!(case.options("/sys").ends_with(",rw"));

    let mut case = Case::new();
    case.config.mounts = vec![Mount {
        container_path: "/model".into(),
        image: Some(ImageSpec {
            image: "model:1".into(),
            ..Default::default()
        }),
        ..Default::default()
    }];
    case.volumes = vec![ImageVolume::Layers(vec!["a".into(), "b".into()])];
    assert_eq!(case.options("/model"), "lowerdir=a:b,ro,nosuid,nodev,noexec");
    case.volumes = vec![ImageVolume::Path("/layers/x".into())];
    assert_eq!(case.options("/model"), "rbind,ro,nosuid,nodev,noexec");
}

#[test]
fn many_layers_are_named_one_by_one() {
    let many: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let options = mounts::overlay(&many, false).unwrap().options().clone().unwrap();
    assert_eq!(options[199], "lowerdir+=199");
    assert!(options.iter().all(|option| option.len() < 256));
}

#[test]
fn propagation_is_the_widest_wish() {
    use MountPropagation::*;
    for (wishes, expected) in [
        (&[][..], "private"),
        (&[PropagationPrivate][..], "private"),
        (&[PropagationPrivate, PropagationHostToContainer][..], "slave"),
        (&[PropagationBidirectional, PropagationHostToContainer][..], "shared"),
    ] {
        let mut case = Case::new();
        case.config.mounts = wishes
            .iter()
            .map(|wish| Mount {
                host_path: "/v".into(),
                container_path: "/v".into(),
                propagation: (*wish).into(),
                ..Default::default()
            })
            .collect();
        assert_eq!(case.linux().rootfs_propagation().as_deref(), Some(expected));
    }
}

#[test]
fn volumes_that_want_less_than_others_are_seen_to_before() {
    use MountPropagation::*;
    let mut case = Case::new();
    let volume = |at: &str, propagation: MountPropagation| Mount {
        host_path: format!("/host{at}"),
        container_path: at.into(),
        propagation: propagation.into(),
        ..Default::default()
    };
    case.config.mounts = vec![
        volume("/a", PropagationBidirectional),
        volume("/b", PropagationBidirectional),
    ];
    assert_eq!(case.specified().unwrap().staging, None, "libcontainer can do that");
    case.config.mounts[1] = volume("/b", PropagationPrivate);
    case.config.mounts.push(volume("/c", PropagationHostToContainer));
    let staging = case.specified().unwrap().staging.unwrap();
    assert_eq!(staging.layers, None);
    let mounts = case.mounts();
    let expected = [("/a", None), ("/b", Some(Spread::Private)), ("/c", Some(Spread::Slave))];
    assert_eq!(staging.mounts.len(), expected.len());
    for (staged, (at, spread)) in staging.mounts.iter().zip(expected) {
        let source = format!("/host{at}").into();
        assert_eq!(
            staged.what,
            Stage::Tree {
                source,
                mapped: false,
                spread
            }
        );
        let mount = mounts.iter().find(|(found, ..)| found == at).unwrap();
        assert_eq!(
            Path::new(&mount.1),
            Path::new("/c").join(&staged.target),
            "a bind of what stands ready"
        );
    }
}

#[test]
fn limits_are_passed_on() {
    let mut case = Case::new();
    let wish = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 1 << 20,
        memory_swap_limit_in_bytes: 1 << 20,
        cpuset_cpus: "0-1".into(),
        ..Default::default()
    };
    case.config.linux.as_mut().unwrap().resources = Some(wish);
    let limits = case.linux().resources().clone().unwrap();
    let (cpu, memory) = (limits.cpu().clone().unwrap(), limits.memory().unwrap());
    assert_eq!(
        (cpu.shares(), cpu.quota(), cpu.period()),
        (Some(512), Some(50_000), Some(100_000))
    );
    assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
    assert_eq!((memory.limit(), memory.swap()), (Some(1 << 20), None));
    case.host.swap = true;
    assert_eq!(
        case.linux().resources().clone().unwrap().memory().unwrap().swap(),
        Some(1 << 20)
    );
    let rules = limits.devices().clone().unwrap();
    assert_eq!((rules.len(), rules[0].allow()), (1, false));
    case.config
        .linux
        .as_mut()
        .unwrap()
        .resources
        .as_mut()
        .unwrap()
        .hugepage_limits = vec![HugepageLimit {
        page_size: "2MB".into(),
        limit: 1,
    }];
    let pages = |case: &Case| case.linux().resources().clone().unwrap().hugepage_limits().clone();
    assert_eq!(pages(&case), None, "the machine has no such controller");
    case.host.controllers.push("hugetlb".into());
    assert_eq!(pages(&case).unwrap()[0].page_size(), "2MB");
}

#[test]
fn devices_are_made_and_allowed() {
    let mut case = Case::new();
    let device = device(Path::new("/dev/null"), Path::new("/dev/void")).unwrap().unwrap();
    case.devices = vec![(device, "rw".into())];
    let linux = case.linux();
    assert_eq!(linux.devices().as_ref().unwrap()[0].path(), Path::new("/dev/void"));
    let rule = &linux.resources().clone().unwrap().devices().clone().unwrap()[1];
    assert_eq!(
        (rule.allow(), rule.major(), rule.minor(), rule.access().as_deref()),
        (true, Some(1), Some(3), Some("rw"))
    );
    assert!(super::device(Path::new("/etc"), Path::new("/x")).unwrap().is_none());
}

#[test]
fn seccomp_profiles() {
    let mut case = Case::new();
    assert!(case.seccomp().is_none());
    let profile = |kind: security_profile::ProfileType, name: &str| {
        Some(SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: name.into(),
        })
    };
    case.context().seccomp = profile(security_profile::ProfileType::Unconfined, "");
    assert!(case.seccomp().is_none());
    case.context().seccomp = profile(security_profile::ProfileType::RuntimeDefault, "");
    let named = |case: &Case, name: &str| {
        case.seccomp()
            .unwrap()
            .syscalls()
            .iter()
            .flatten()
            .filter(|rule| rule.names().iter().any(|known| known == name))
            .map(|rule| (rule.action(), rule.args().is_some()))
            .collect::<Vec<_>>()
    };
    let allow = LinuxSeccompAction::ScmpActAllow;
    assert_eq!(named(&case, "read"), [(allow, false)]);
    assert_eq!(named(&case, "chroot"), [(allow, false)]);
    assert_eq!(named(&case, "mount"), []);
    assert_eq!(named(&case, "clone"), [(allow, true)]);
    assert_eq!(named(&case, "clone3"), [(LinuxSeccompAction::ScmpActErrno, false)]);
    case.context().capabilities = Some(CriCapability {
        add_capabilities: strings(&["SYS_ADMIN"]),
        ..Default::default()
    });
    assert_eq!(named(&case, "mount"), [(allow, false)]);
    assert_eq!(named(&case, "clone"), [(allow, false)]);

    case.context().seccomp = profile(security_profile::ProfileType::Localhost, "/profiles/p.json");
    case.profile = Some(r#"{"defaultAction":"SCMP_ACT_LOG"}"#.into());
    let local = case.seccomp().unwrap();
    assert_eq!(local.default_action(), LinuxSeccompAction::ScmpActLog);
    case.profile = Some("{".into());
    assert!(matches!(case.spec().unwrap_err(), SpecError::Seccomp { path, .. } if path == "/profiles/p.json"));
    case.profile = Some(r#"{"defaultAction":"SCMP_ACT_LOG","listenerPath":"/run/agent"}"#.into());
    assert!(matches!(case.spec().unwrap_err(), SpecError::Seccomp { .. }));
    case.context().privileged = true;
    assert!(case.seccomp().is_none());
}

#[test]
fn paths_are_masked_unless_privileged() {
    let mut case = Case::new();
    case.context().masked_paths = strings(&["/proc/kcore"]);
    case.context().readonly_paths = strings(&["/proc/sys"]);
    let linux = case.linux();
    assert_eq!(linux.masked_paths().as_deref(), Some(&strings(&["/proc/kcore"])[..]));
    assert_eq!(linux.readonly_paths().as_deref(), Some(&strings(&["/proc/sys"])[..]));
    case.context().privileged = true;
    assert_eq!(case.linux().masked_paths().as_deref(), Some(&[][..]));
}

#[test]
fn pause_has_no_power() {
    let spec = pause(
        Path::new("/run/pause"),
        Path::new("/kubepods/pod1/s"),
        &Case::new().host,
        false,
        None,
    )
    .unwrap();
    let process = spec.process().clone().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &strings(&["/pause"]));
    assert!(
        process
            .capabilities()
            .as_ref()
            .unwrap()
            .bounding()
            .as_ref()
            .unwrap()
            .is_empty()
    );
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
}

#[test]
fn a_filter_is_loaded_with_what_is_given_back() {
    use oci_spec::runtime::Capability as Spec;
    let mut case = Case::new();
    let borrowed = |case: &Case| case.specified().unwrap().confinement.borrowed;
    let bounding = |case: &Case| {
        case.process()
            .capabilities()
            .clone()
            .unwrap()
            .bounding()
            .clone()
            .unwrap()
    };
    assert!(borrowed(&case).is_empty() && !bounding(&case).contains(&Spec::SysAdmin));
    case.context().seccomp = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::RuntimeDefault.into(),
        ..Default::default()
    });
    assert_eq!(borrowed(&case), ["CAP_SYS_ADMIN"]);
    assert!(bounding(&case).contains(&Spec::SysAdmin));
    case.context().capabilities = Some(CriCapability {
        drop_capabilities: strings(&["ALL"]),
        ..Default::default()
    });
    assert_eq!(borrowed(&case), ["CAP_SYS_ADMIN", "CAP_SETPCAP"]);
    // Who can gain nothing may load a filter as he is.
    case.context().no_new_privs = true;
    assert!(borrowed(&case).is_empty() && bounding(&case).is_empty());
}
