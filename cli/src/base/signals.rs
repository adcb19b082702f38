//! Signals that end the program: SIGINT, SIGTERM or SIGHUP for a graceful end, a further SIGINT or
//! SIGTERM for an immediate one. A SIGHUP that was ignored when the program started stays ignored,
//! as under `nohup`.

use std::future::Future;

use super::exit::ExitError;

/// Completes at the first SIGINT, SIGTERM or SIGHUP after the call.
///
/// # Errors
/// If the system does not deliver signals to this process.
#[cfg(unix)]
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()>, ExitError> {
    use tokio::signal::unix::SignalKind;

    let mut hangup = match ignores_hangup() {
        true => None,
        false => Some(receive(SignalKind::hangup())?),
    };
    let asked = interrupted()?;
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = asked => {}
            () = hung_up => {}
        }
    })
}

/// Completes at the first SIGINT or SIGTERM after the call. A terminal that closes may send SIGHUP
/// twice, by the kernel and by the shell, which asks for nothing more than one.
///
/// # Errors
/// If the system does not deliver signals to this process.
#[cfg(unix)]
pub(crate) fn interrupted() -> Result<impl Future<Output = ()>, ExitError> {
    use tokio::signal::unix::SignalKind;

    let mut interrupt = receive(SignalKind::interrupt())?;
    let mut terminate = receive(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(unix)]
fn receive(
    kind: tokio::signal::unix::SignalKind,
) -> Result<tokio::signal::unix::Signal, ExitError> {
    use super::exit::Exit;

    tokio::signal::unix::signal(kind).map_err(|error| {
        ExitError::new(Exit::Degraded, format!("signals cannot be received: {error}"))
    })
}

/// Returns true if SIGHUP is ignored, or if this system does not report it: without a report, the
/// signal keeps its effect from before.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    status.ok().and_then(|status| is_hangup_ignored(&status)).unwrap_or(true)
}

/// Returns whether SIGHUP, the lowest bit, is in the mask of ignored signals of a `/proc` status.
#[cfg(unix)]
fn is_hangup_ignored(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? & 1 == 1)
}

/// Completes at the first Ctrl-C.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()>, ExitError> {
    interrupted()
}

/// Completes at the first Ctrl-C.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
pub(crate) fn interrupted() -> Result<impl Future<Output = ()>, ExitError> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_the_lowest_bit_of_the_mask() {
        let ignored = |mask| is_hangup_ignored(&format!("Name:\tadit\nSigIgn:\t{mask}\nX:\t0"));
        assert_eq!(ignored("0000000000000001"), Some(true));
        assert_eq!(ignored("0000000000001000"), Some(false));
        assert_eq!(ignored("none"), None);
        assert_eq!(is_hangup_ignored("Name:\tadit"), None);
    }
}
