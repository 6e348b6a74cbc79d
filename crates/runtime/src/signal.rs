//! The signal that asks a container to end.

use cri::v1::Signal;
use nix::libc;

/// What the pod says, else what the image says, else SIGTERM.
pub(crate) fn stop_signal(pod: Signal, image: &str) -> i32 {
    number(pod.as_str_name())
        .or_else(|| {
            image
                .parse()
                .ok()
                .filter(|number| (1..=libc::SIGRTMAX()).contains(number))
        })
        .or_else(|| number(&image.to_ascii_uppercase()))
        .or_else(|| number(&format!("SIG{}", image.to_ascii_uppercase())))
        .unwrap_or(libc::SIGTERM)
}

fn number(name: &str) -> Option<i32> {
    if let Ok(signal) = name.parse::<nix::sys::signal::Signal>() {
        return Some(signal as i32);
    }
    match name {
        "SIGCLD" => return Some(libc::SIGCHLD),
        "SIGIOT" => return Some(libc::SIGABRT),
        "SIGPOLL" => return Some(libc::SIGIO),
        _ => {}
    }
    let rest = name.strip_prefix("SIGRT")?;
    let (base, sign, rest) = match (rest.strip_prefix("MIN"), rest.strip_prefix("MAX")) {
        (Some(rest), _) => (libc::SIGRTMIN(), 1, rest),
        (_, Some(rest)) => (libc::SIGRTMAX(), -1, rest),
        _ => return None,
    };
    let offset: i32 = match rest
        .trim_start_matches("PLUS")
        .trim_start_matches("MINUS")
        .trim_start_matches(['+', '-'])
    {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    Some(base + sign * offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_comes_before_the_image() {
        let cases = [
            (Signal::RuntimeDefault, "", libc::SIGTERM),
            (Signal::RuntimeDefault, "SIGQUIT", libc::SIGQUIT),
            (Signal::RuntimeDefault, "quit", libc::SIGQUIT),
            (Signal::RuntimeDefault, "9", libc::SIGKILL),
            (Signal::RuntimeDefault, "SIGRTMIN+3", libc::SIGRTMIN() + 3),
            (Signal::RuntimeDefault, "nonsense", libc::SIGTERM),
            (Signal::RuntimeDefault, "900", libc::SIGTERM),
            (Signal::Sigusr1, "SIGQUIT", libc::SIGUSR1),
            (Signal::Sigrtminplus2, "", libc::SIGRTMIN() + 2),
            (Signal::Sigrtmaxminus1, "", libc::SIGRTMAX() - 1),
            (Signal::Sigcld, "", libc::SIGCHLD),
        ];
        for (pod, image, expected) in cases {
            assert_eq!(stop_signal(pod, image), expected, "{pod:?} {image}");
        }
    }
}
