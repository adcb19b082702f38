//! Several candidates, one connection: attempts start one after another, a head start apart, and
//! the first that connects is kept (RFC 8305 §5). It decides when the next attempt starts; its
//! callers decide what an attempt is, and their order.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long an attempt is alone before the next starts beside it (RFC 8305 §5).
pub(crate) const HEAD_START: Duration = Duration::from_millis(250);

/// Returns the first connection. Attempts that have not ended by then are dropped.
///
/// An attempt that fails, or cannot be started, makes the next one start immediately. `worse` picks
/// the error to report from an earlier one and a later one.
///
/// # Errors
/// The picked error once all attempts have failed; `None` if there was no candidate.
pub(crate) async fn first<C, F, T, E>(
    candidates: Vec<C>,
    head_start: impl Fn(&C) -> Duration,
    mut start: impl FnMut(C) -> Result<F, E>,
    worse: impl Fn(E, E) -> E,
) -> Result<T, Option<E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut rest = candidates.into_iter();
    let mut running = JoinSet::new();
    let mut error: Option<E> = None;
    loop {
        let mut alone = HEAD_START;
        if let Some(candidate) = rest.next() {
            alone = head_start(&candidate);
            match start(candidate) {
                Ok(attempt) => drop(running.spawn(attempt)),
                Err(now) => {
                    error = Some(merge(error, now, &worse));
                    continue;
                }
            }
        }
        let is_last = rest.len() == 0;
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = sleep(alone), if !is_last => continue,
        };
        match ended {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(now))) => error = Some(merge(error, now, &worse)),
            // A task that was aborted: that does not happen before the end.
            Some(Err(_)) => {}
            None if is_last => return Err(error),
            None => {}
        }
    }
}

fn merge<E>(before: Option<E>, now: E, worse: impl Fn(E, E) -> E) -> E {
    match before {
        Some(before) => worse(before, now),
        None => now,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    /// When an attempt ends, and whether it connects.
    type Script = (Duration, bool);

    /// Runs attempts by a script. Returns the winner's number or the last failed one's, and when
    /// each was started.
    async fn run(script: &[Script]) -> (Result<usize, Option<usize>>, Vec<Duration>) {
        let (began, started) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let noted = started.clone();
        let numbered = script.iter().copied().enumerate().collect();
        let start = |(number, (takes, connects)): (usize, Script)| {
            noted.lock().unwrap().push(began.elapsed());
            Ok(async move {
                sleep(takes).await;
                if connects { Ok(number) } else { Err(number) }
            })
        };
        let result = first(numbered, |_| HEAD_START, start, |_, later| later).await;
        let started = started.lock().unwrap().clone();
        (result, started)
    }

    const QUICK: Duration = Duration::from_millis(10);
    const NEVER: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_after_the_head_start_and_the_first_to_connect_wins() {
        let (winner, started) = run(&[(NEVER, true), (NEVER, true), (QUICK, true)]).await;
        assert_eq!(winner, Ok(2));
        assert_eq!(started, [Duration::ZERO, HEAD_START, 2 * HEAD_START]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_immediately() {
        let (winner, started) = run(&[(QUICK, false), (QUICK, true)]).await;
        assert_eq!((winner, started), (Ok(1), vec![Duration::ZERO, QUICK]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_picked_error_is_returned_and_none_without_candidates() {
        let (lost, _) = run(&[(QUICK, false), (QUICK, false)]).await;
        assert_eq!(lost, Err(Some(1)));
        assert_eq!(run(&[]).await.0, Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_cannot_start_gives_way_to_the_next() {
        let start = |number: usize| match number {
            0 => Err("cannot start"),
            _ => Ok(std::future::ready(Ok(number))),
        };
        let began = Instant::now();
        let winner = first(vec![0, 1], |_| HEAD_START, start, |before, _| before).await;
        assert_eq!((winner, began.elapsed()), (Ok(1), Duration::ZERO));
    }
}
