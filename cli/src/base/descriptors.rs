//! The descriptors that the system lets this process open: the soft limit is raised to the hard one
//! at the start. It decides how many of them connections may take; the rest is a reserve for the
//! control socket, for the registry and for accepting.

/// Descriptors that connections leave free: sixteen control clients, the sockets of a node and of
/// its relays, files, and what a resolver opens.
const RESERVE: u64 = 64;

/// Share of a small limit that connections leave free.
const SHARE: u64 = 4;

/// Raises the soft limit to the hard one. If the system refuses, the process lives with less.
pub(crate) fn raise() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Returns the number of descriptors that this process may open, if there is a limit.
fn limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// Returns how many of `wanted` connections can be open at a time, and logs if that is fewer.
pub(crate) fn connections(wanted: usize) -> usize {
    let Some(limit) = limit() else { return wanted };
    let allowed = allowed(wanted, limit);
    if allowed < wanted {
        tracing::info!(
            "this process may open {limit} files, and forwards at most {allowed} connections at a time; \
             for more, check the limit on open files (ulimit -n, LimitNOFILE)"
        );
    }
    allowed
}

fn allowed(wanted: usize, limit: u64) -> usize {
    let free = limit.saturating_sub(RESERVE.min(limit / SHARE)).max(1);
    wanted.min(usize::try_from(free).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_of_descriptors() {
        assert_eq!(allowed(16_384, 1 << 20), 16_384);
        assert_eq!(allowed(16_384, 1_024), 960);
        assert_eq!(allowed(960, 1_024), 960);
        assert_eq!(allowed(961, 1_024), 960);
        assert_eq!(allowed(16_384, 48), 36);
        assert_eq!(allowed(16_384, 0), 1);
    }
}
