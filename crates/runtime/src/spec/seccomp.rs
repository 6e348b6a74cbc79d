//! Which system calls a container may make.
//!
//! `RuntimeDefault` is the list that Kubernetes documents through Docker's and containerd's: what ordinary programs
//! need, more for each capability that the container has, and an error for everything else.

use caps::{Capability, CapsHashSet};
use cri::v1::security_profile::ProfileType;
use cri::v1::{LinuxContainerSecurityContext, SecurityProfile};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use super::{Host, Request, SpecError, capabilities};

pub(super) fn filter(
    request: &Request<'_>,
    context: &LinuxContainerSecurityContext,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    let Some(profile) = context.seccomp.as_ref().filter(|_| !context.privileged) else {
        return Ok(None);
    };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => {
            let (set, _) = capabilities::sets(context, request.host)?;
            runtime_default(&set).map(Some)
        }
        ProfileType::Localhost => local(profile, request.seccomp_profile).map(Some),
    }
}

/// The filters that nearly every container has: of one that asks for nothing, and of one that gives all
/// capabilities up.
pub(crate) fn common(host: &Host) -> Result<Vec<LinuxSeccomp>, SpecError> {
    Ok(vec![
        runtime_default(&capabilities::default(host))?,
        runtime_default(&CapsHashSet::new())?,
    ])
}

fn local(profile: &SecurityProfile, text: Option<&str>) -> Result<LinuxSeccomp, SpecError> {
    let unusable = |reason: String| SpecError::Seccomp {
        path: profile.localhost_ref.clone(),
        reason,
    };
    let text = text.ok_or_else(|| unusable("the file cannot be read".into()))?;
    let filter: LinuxSeccomp = serde_json::from_str(text).map_err(|err| unusable(err.to_string()))?;
    let notifies = |rule: &LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActNotify;
    if filter.listener_path().is_some() || filter.syscalls().iter().flatten().any(notifies) {
        return Err(unusable(
            "SCMP_ACT_NOTIFY needs an agent on the node, which Podium does not speak to".into(),
        ));
    }
    Ok(filter)
}

/// What ordinary programs need.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
    select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink
    unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// What a machine's own architecture adds.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "arch_prctl modify_ldt"
} else if cfg!(target_arch = "aarch64") {
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"
} else {
    ""
};

/// What a capability adds.
const BY_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::CAP_DAC_READ_SEARCH, "open_by_handle_at"),
    (
        Capability::CAP_SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::CAP_SYS_BOOT, "reboot"),
    (Capability::CAP_SYS_CHROOT, "chroot"),
    (Capability::CAP_SYS_MODULE, "delete_module finit_module init_module"),
    (Capability::CAP_SYS_PACCT, "acct"),
    (Capability::CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (Capability::CAP_SYS_RAWIO, "ioperm iopl"),
    (
        Capability::CAP_SYS_TIME,
        "clock_settime clock_settime64 settimeofday stime",
    ),
    (Capability::CAP_SYS_TTY_CONFIG, "vhangup"),
    (
        Capability::CAP_SYS_NICE,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::CAP_SYSLOG, "syslog"),
    (Capability::CAP_BPF, "bpf"),
];

/// Every flag with which clone makes a namespace.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;

/// Sockets between a virtual machine and its host leave every network namespace.
const AF_VSOCK: u64 = 40;

/// The execution domains of ordinary programs, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn runtime_default(set: &CapsHashSet) -> Result<LinuxSeccomp, SpecError> {
    let mut names: Vec<&str> = ALLOWED
        .split_whitespace()
        .chain(ARCHITECTURE.split_whitespace())
        .collect();
    for (capability, more) in BY_CAPABILITY {
        if set.contains(&capability) {
            names.extend(more.split_whitespace());
        }
    }
    if set.contains(&Capability::CAP_PERFMON) {
        names.push("perf_event_open");
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![allow(&names, None)];
    rules.push(allow(
        &["socket"],
        Some(compare(0, LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)?),
    ));
    for persona in PERSONALITIES {
        let is = compare(0, LinuxSeccompOperator::ScmpCmpEq, persona, None)?;
        rules.push(allow(&["personality"], Some(is)));
    }
    if !set.contains(&Capability::CAP_SYS_ADMIN) {
        let no_namespace = compare(0, LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, Some(0))?;
        rules.push(allow(&["clone"], Some(no_namespace)));
        // Its flags are out of a filter's sight: the C library falls back to clone.
        let mut clone3 = LinuxSyscall::default();
        clone3
            .set_names(vec!["clone3".into()])
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(clone3);
    }
    let mut filter = LinuxSeccomp::default();
    filter
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures()))
        .set_flags(None)
        .set_syscalls(Some(rules));
    Ok(filter)
}

fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn allow(names: &[&str], condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(ToString::to_string).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_errno_ret(None)
        .set_args(condition.map(|condition| vec![condition]));
    rule
}

fn compare(index: usize, op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> Result<LinuxSeccompArg, SpecError> {
    let arg = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    Ok(match two {
        Some(two) => arg.value_two(two),
        None => arg,
    }
    .build()?)
}
