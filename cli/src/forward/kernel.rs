//! What Linux knows of a TCP connection and shows in `/proc`: whether it sends again what the other
//! end does not acknowledge.
//!
//! A host that vanished looks like a reader that stands still: neither takes bytes. Only the system
//! knows which it is. Its option for a limit, `TCP_USER_TIMEOUT`, would end the reader as well.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one reading of the table is good, for all connections together.
const FRESH: Duration = Duration::from_secs(5);

/// The table of each family.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The kind of timer in the table while unacknowledged bytes wait to be sent again.
const RETRANSMISSION: &str = "01";

/// The sockets that wait for an acknowledgement, by their inodes, and when that was read.
type Reading = (Instant, Arc<BTreeSet<u64>>);

static LATEST: Mutex<Option<Reading>> = Mutex::new(None);

/// Returns true if bytes of a connection wait for an acknowledgement, and the window of the other
/// end is not what they wait for.
pub(super) async fn is_retransmitting(fd: RawFd) -> bool {
    let asked = tokio::task::spawn_blocking(move || {
        let inode = inode(fd)?;
        Some(latest()?.contains(&inode))
    });
    asked.await.ok().flatten().unwrap_or(false)
}

fn inode(fd: RawFd) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn latest() -> Option<Arc<BTreeSet<u64>>> {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Some(known.clone());
    }
    let mut waiting = BTreeSet::new();
    for table in TABLES {
        // A system without IPv6 has one of the two.
        let text = std::fs::read_to_string(table).unwrap_or_default();
        waiting.extend(text.lines().filter_map(retransmitting_inode));
    }
    let waiting = Arc::new(waiting);
    *latest = Some((Instant::now(), waiting.clone()));
    Some(waiting)
}

/// Returns the inode of a line of the table, if the connection waits for an acknowledgement.
fn retransmitting_inode(line: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(5);
    let (timer, _) = fields.next()?.split_once(':')?;
    let inode = fields.nth(3)?.parse().ok()?;
    (timer == RETRANSMISSION).then_some(inode)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_kind_of_timer_decides() {
        let line = |timer| {
            format!(
                "   1: 0100007F:1F90 0100007F:C350 01 00000400:00000000 {timer}:00000014 00000003  \
                 1000        0 123456 2 0000000000000000 20 4 30 10 -1"
            )
        };
        assert_eq!(retransmitting_inode(&line("01")), Some(123_456));
        // None; keep-alive; a closed window.
        for other in ["00", "02", "04"] {
            assert_eq!(retransmitting_inode(&line(other)), None);
        }
        let title = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(retransmitting_inode(title), None);
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_no_host_that_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_reader, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let block = vec![0; 1 << 20];
        while tcp.write(&block).is_ok() {}
        assert!(inode(tcp.as_raw_fd()).is_some());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!is_retransmitting(tcp.as_raw_fd()).await);
    }
}
