//! Waiting for what passes by itself: an address that the machine does not have yet, a port that
//! another program still holds, a clock that is wrong. It decides how long that is waited for.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::exit::{ExitError, Obstacle};

/// Pause before the second try; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause: an address is used within this time of its arrival.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pause before a clock is looked at again.
pub(crate) const CLOCK_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// How long a port in use is waited for, and anything else where a person waits: a program that was
/// asked to end gives its connections 5 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Tries until it works, or until what prevents it does not pass. It logs the cause once.
///
/// # Errors
/// What prevents it.
pub(crate) async fn until_possible<T>(
    attempt: impl FnMut() -> Result<T, ExitError>,
) -> Result<T, ExitError> {
    keep_trying(attempt, std::io::stderr().is_terminal()).await
}

async fn keep_trying<T>(
    mut attempt: impl FnMut() -> Result<T, ExitError>,
    is_watched: bool,
) -> Result<T, ExitError> {
    let (start, mut pause, mut logged) = (tokio::time::Instant::now(), FIRST_PAUSE, None);
    loop {
        let stop = match attempt() {
            Ok(result) => return Ok(result),
            Err(stop) => stop,
        };
        let Some(obstacle) = stop.obstacle() else { return Err(stop) };
        let is_limited = is_watched || obstacle == Obstacle::PortInUse;
        if is_limited && start.elapsed() >= LIMIT {
            return Err(stop);
        }
        if logged.replace(obstacle) != Some(obstacle) {
            tracing::warn!("waiting: {stop}");
        }
        tokio::time::sleep(match obstacle {
            Obstacle::Clock => CLOCK_POLL_INTERVAL,
            Obstacle::NoAddress | Obstacle::PortInUse => pause,
        })
        .await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;
    use std::cell::Cell;
    use std::io::{Error, ErrorKind};

    fn of(kind: ErrorKind) -> ExitError {
        ExitError::of_bind(&Error::from(kind), "192.0.2.1:9: cannot be used")
    }

    /// Returns how long a failure that lasts for `lasting` is waited for, and the result.
    async fn waited(
        kind: ErrorKind,
        lasting: Duration,
        is_watched: bool,
    ) -> (Duration, Option<Exit>) {
        let start = tokio::time::Instant::now();
        let tried = keep_trying(
            || if start.elapsed() < lasting { Err(of(kind)) } else { Ok(()) },
            is_watched,
        );
        let result = tried.await;
        (start.elapsed(), result.err().map(|stop| stop.exit()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_not_there_is_waited_for_without_end() {
        let (hour, is_watched) = (Duration::from_secs(3_600), false);
        let (took, failed) = waited(ErrorKind::AddrNotAvailable, hour, is_watched).await;
        assert_eq!(failed, None);
        assert!(took <= hour + LONGEST_PAUSE, "{took:?}");
        let (took, _) = waited(ErrorKind::AddrNotAvailable, FIRST_PAUSE, is_watched).await;
        assert_eq!(took, FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_waited_for_ten_seconds_where_a_person_waits() {
        let (took, failed) =
            waited(ErrorKind::AddrNotAvailable, Duration::from_secs(3_600), true).await;
        assert_eq!(failed, Some(Exit::Degraded));
        assert!(took >= LIMIT && took < LIMIT + LONGEST_PAUSE, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_in_use_ends_the_program_after_ten_seconds_with_5() {
        let (took, failed) = waited(ErrorKind::AddrInUse, Duration::from_secs(3_600), false).await;
        assert_eq!(failed, Some(Exit::Degraded));
        assert!(took >= LIMIT && took < LIMIT + LONGEST_PAUSE, "{took:?}");
        let (_, failed) = waited(ErrorKind::AddrInUse, Duration::from_secs(6), false).await;
        assert_eq!(failed, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_without_permission_is_not_waited_for() {
        let tries = Cell::new(0);
        let tried = keep_trying(
            || -> Result<(), _> {
                tries.set(tries.get() + 1);
                Err(of(ErrorKind::PermissionDenied))
            },
            false,
        );
        assert_eq!(tried.await.unwrap_err().exit(), Exit::Usage);
        assert_eq!(tries.get(), 1);
    }
}
