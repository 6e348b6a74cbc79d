//! The pause container: holds a pod's namespaces open by doing nothing.
//!
//! As process 1 of a shared PID namespace it also collects the processes that lost their parents. It has no standard
//! library, no allocator and no memory of its own but a stack.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
const WNOHANG: usize = 1;
const SIG_BLOCK: usize = 0;
/// The kernel's signal set is 64 bits here.
const SET_BYTES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
}

// The stack must be aligned before the first Rust function.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "and rsp, -16", "call {main}", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "bl {main}", main = sym main);

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; every register it changes is named.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; every register it changes is named.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

extern "C" fn main() -> ! {
    let set: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const set as usize;
    // SAFETY: `set` lives as long as the program; null is allowed for what is not wanted.
    unsafe {
        // Blocked signals wait to be fetched, even for process 1 of a namespace, whose unhandled ones are dropped.
        syscall(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SET_BYTES);
        loop {
            match syscall(number::RT_SIGTIMEDWAIT, set, 0, 0, SET_BYTES) as u64 {
                SIGINT | SIGTERM => {
                    syscall(number::EXIT_GROUP, 0, 0, 0, 0);
                }
                SIGCHLD => while syscall(number::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {},
                _ => {}
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
