//! The seccomp filters of containers.
//!
//! To compile one takes libseccomp about as long as all the rest of a container's creation. So the zygote compiles
//! those that nearly every container has, once, and shims find them in their memory; any other is compiled by the
//! process that it is for.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
};

/// A container's filter, ready to be loaded by its process.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    Compiled(&'static [libc::sock_filter]),
    Described(Box<LinuxSeccomp>),
}

static COMPILED: OnceLock<Vec<(LinuxSeccomp, Vec<libc::sock_filter>)>> = OnceLock::new();

/// Compiles filters for the shims to come. One that cannot be compiled here is compiled where it is needed, and fails
/// there if it must.
pub(super) fn compile(profiles: Vec<LinuxSeccomp>) {
    let compiled = profiles
        .into_iter()
        .filter_map(|profile| {
            let program = program(&profile).ok()??;
            Some((profile, program))
        })
        .collect();
    // The zygote does this once.
    let _ = COMPILED.set(compiled);
}

impl Filter {
    pub(super) fn of(profile: &LinuxSeccomp) -> Self {
        let compiled = COMPILED.get().into_iter().flatten();
        match compiled.into_iter().find(|(known, _)| known == profile) {
            Some((_, program)) => Filter::Compiled(program),
            None => Filter::Described(Box::new(masks_turned(profile.clone()))),
        }
    }

    /// Puts this process under the filter for good.
    pub(super) fn load(&self) -> Result<(), String> {
        let program = match self {
            Filter::Compiled(program) => program,
            Filter::Described(profile) => {
                return libcontainer::seccomp::initialize_seccomp(profile)
                    .map(drop)
                    .map_err(|err| format!("load the seccomp filter: {err}"));
            }
        };
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads the program, which lives as long as the process, and writes nothing.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        Errno::result(result)
            .map(drop)
            .map_err(|errno| format!("load the seccomp filter: {errno}"))
    }
}

/// OCI has the mask of a masked comparison first and libcontainer takes it for the other value, which would make the
/// comparison true always.
fn masks_turned(mut profile: LinuxSeccomp) -> LinuxSeccomp {
    let turned = |arg: &LinuxSeccompArg| {
        let builder = LinuxSeccompArgBuilder::default().index(arg.index()).op(arg.op());
        let turned = match arg.op() {
            LinuxSeccompOperator::ScmpCmpMaskedEq => builder
                .value(arg.value_two().unwrap_or(0))
                .value_two(arg.value())
                .build(),
            _ => return *arg,
        };
        // Every field is set, so there is nothing to fail.
        turned.unwrap_or(*arg)
    };
    let rules = profile.syscalls().iter().flatten().map(|rule| {
        let mut rule = rule.clone();
        let args = rule.args().as_ref().map(|args| args.iter().map(turned).collect());
        rule.set_args(args);
        rule
    });
    let rules = rules.collect();
    profile.set_syscalls(Some(rules));
    profile
}

/// The filter as the kernel runs it; none for a profile that uses more than Podium's own do.
fn program(profile: &LinuxSeccomp) -> io::Result<Option<Vec<libc::sock_filter>>> {
    let (Some(default), Some(architectures)) = (
        action(profile.default_action(), profile.default_errno_ret()),
        profile
            .architectures()
            .as_ref()
            .and_then(|list| list.iter().map(architecture).collect::<Option<Vec<_>>>()),
    ) else {
        return Ok(None);
    };
    let mut context = ScmpFilterContext::new(default).map_err(io::Error::other)?;
    // A tree instead of a list: every system call of the container goes through it.
    context.set_ctl_optimize(2).map_err(io::Error::other)?;
    for architecture in architectures {
        context.add_arch(architecture).map_err(io::Error::other)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let Some(action) = action(rule.action(), rule.errno_ret()) else {
            return Ok(None);
        };
        let conditions: Vec<_> = rule.args().iter().flatten().map(condition).collect();
        for name in rule.names() {
            // What the machine's libseccomp does not know is not allowed.
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            context
                .add_rule_conditional(action, call, &conditions)
                .map_err(io::Error::other)?;
        }
    }
    let mut file = File::from(memfd_create(c"filter", MFdFlags::MFD_CLOEXEC)?);
    context.export_bpf(file.as_fd()).map_err(io::Error::other)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(
        bytes
            .chunks_exact(size_of::<libc::sock_filter>())
            .map(instruction)
            .collect(),
    ))
}

/// An instruction as libseccomp writes it: the kernel's structure in the machine's byte order.
fn instruction(bytes: &[u8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Option<ScmpAction> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Some(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActErrno => Some(ScmpAction::Errno(errno.map_or(libc::EPERM, |errno| errno as i32))),
        _ => None,
    }
}

fn architecture(architecture: &Arch) -> Option<ScmpArch> {
    match architecture {
        Arch::ScmpArchX86_64 => Some(ScmpArch::X8664),
        Arch::ScmpArchX86 => Some(ScmpArch::X86),
        Arch::ScmpArchX32 => Some(ScmpArch::X32),
        Arch::ScmpArchAarch64 => Some(ScmpArch::Aarch64),
        Arch::ScmpArchArm => Some(ScmpArch::Arm),
        Arch::ScmpArchNative => Some(ScmpArch::Native),
        _ => None,
    }
}

fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let op = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        // The description has the mask first, libseccomp wants it with the comparison.
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(arg.value()),
    };
    let datum = match arg.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => arg.value_two().unwrap_or(0),
        _ => arg.value(),
    };
    ScmpArgCompare::new(arg.index() as u32, op, datum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use super::*;
    use crate::spec;

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;

    /// Runs a filter as the kernel does, on a call with one argument.
    fn run(program: &[libc::sock_filter], number: i64, argument: u64) -> u32 {
        #[cfg(target_arch = "x86_64")]
        const ARCHITECTURE: u32 = 0xc000_003e;
        #[cfg(target_arch = "aarch64")]
        const ARCHITECTURE: u32 = 0xc000_00b7;
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&(number as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&ARCHITECTURE.to_ne_bytes());
        data[16..24].copy_from_slice(&argument.to_ne_bytes());
        let (mut at, mut value) = (0usize, 0u32);
        loop {
            let step = program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            match step.code {
                0x20 => value = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap()),
                0x54 => value &= step.k,
                0x05 => at += step.k as usize,
                0x15 => at += jump(value == step.k),
                0x25 => at += jump(value > step.k),
                0x35 => at += jump(value >= step.k),
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_default_filter_lets_through_what_it_should() {
        let default = spec::common_filters(&spec::Host::default()).unwrap().remove(0);
        let program = program(&default).unwrap().unwrap();
        let errno = |errno: i32| ERRNO | errno as u32;
        let cases = [
            (libc::SYS_read, 0, ALLOW),
            (libc::SYS_chroot, 0, ALLOW),
            (libc::SYS_mount, 0, errno(libc::EPERM)),
            (libc::SYS_keyctl, 0, errno(libc::EPERM)),
            (libc::SYS_clone, libc::SIGCHLD as u64, ALLOW),
            (libc::SYS_clone, libc::CLONE_NEWUSER as u64, errno(libc::EPERM)),
            (libc::SYS_clone3, 0, errno(libc::ENOSYS)),
            (libc::SYS_socket, libc::AF_INET as u64, ALLOW),
            (libc::SYS_socket, libc::AF_VSOCK as u64, errno(libc::EPERM)),
            (libc::SYS_personality, 0xffff_ffff, ALLOW),
            (libc::SYS_personality, 0x40000, errno(libc::EPERM)),
        ];
        for (number, argument, expected) in cases {
            assert_eq!(
                run(&program, number, argument),
                expected,
                "call {number} with {argument:#x}"
            );
        }
    }

    #[test]
    fn without_capabilities_less_is_let_through() {
        let bare = spec::common_filters(&spec::Host::default()).unwrap().remove(1);
        let program = program(&bare).unwrap().unwrap();
        assert_eq!(run(&program, libc::SYS_read, 0), ALLOW);
        assert_eq!(run(&program, libc::SYS_chroot, 0), ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn a_profile_with_more_is_left_to_libcontainer() {
        let mut profile = spec::common_filters(&spec::Host::default()).unwrap().remove(0);
        profile.set_default_action(LinuxSeccompAction::ScmpActLog);
        assert!(program(&profile).unwrap().is_none());
        let clone = |profile: &LinuxSeccomp| {
            let rules = profile.syscalls().clone().unwrap();
            let rule = rules.iter().find(|rule| rule.names() == &["clone"]).unwrap();
            let arg = rule.args().as_ref().unwrap()[0];
            (arg.value(), arg.value_two())
        };
        assert_eq!(clone(&profile), (0x7e02_0000, Some(0)));
        assert_eq!(clone(&masks_turned(profile)), (0, Some(0x7e02_0000)));
    }
}
