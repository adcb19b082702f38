//! How forwarded connections end: last words before a reset, early answers, and what is cut short.
//! Each as plain TCP does it, through a connector and an agent in processes of their own.

mod common;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use common::{LIMIT, Tunnel, connect, echo, service};
use socket2::SockRef;

fn reset(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_linger(Some(Duration::ZERO))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Reads to the end. Returns what came, and whether it ended with a reset.
fn read_to_reset(tcp: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let end = tcp.read_to_end(&mut all);
    (all, end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
}

#[test]
fn last_words_of_a_service_arrive_before_its_reset() {
    let words = pattern(60_000);
    let given = words.clone();
    let last_words = move |mut tcp: TcpStream| {
        tcp.write_all(&given)?;
        reset(&tcp)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("sshd", service(last_words), "")]);
    for _ in 0..50 {
        let (arrived, is_reset) = read_to_reset(&mut connect(tunnel.ports[1]));
        assert_eq!((arrived.len(), is_reset), (words.len(), true));
        assert!(arrived == words);
    }
}

#[test]
fn last_words_wait_for_a_client_that_reads_late() {
    let words = pattern(900_000);
    let given = words.clone();
    let last_words = move |mut tcp: TcpStream| {
        tcp.write_all(&given)?;
        // What the connector has not taken yet would be lost on its own machine.
        tcp.read_exact(&mut [0])?;
        reset(&tcp)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("late", service(last_words), "")]);
    let tcp = connect(tunnel.ports[1]);
    SockRef::from(&tcp).set_recv_buffer_size(16 * 1024).unwrap();
    let mut tcp = tcp;
    std::thread::sleep(Duration::from_millis(500));
    tcp.write_all(b"!").unwrap();
    let mut arrived = vec![0; words.len()];
    for piece in arrived.chunks_mut(10_000) {
        std::thread::sleep(Duration::from_millis(10));
        tcp.read_exact(piece).unwrap();
    }
    assert!(arrived == words);
    assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn last_words_of_a_client_arrive_before_its_reset() {
    let (heard, hearing) = mpsc::channel();
    let listen = move |mut tcp: TcpStream| {
        tcp.write_all(b"!")?;
        heard.send(read_to_reset(&mut tcp)).map_err(io::Error::other)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("listener", service(listen), "")]);
    let words = pattern(60_000);
    for _ in 0..50 {
        let mut tcp = connect(tunnel.ports[1]);
        tcp.read_exact(&mut [0]).unwrap();
        tcp.write_all(&words).unwrap();
        reset(&tcp).unwrap();
        drop(tcp);
        let (arrived, is_reset) = hearing.recv_timeout(LIMIT).unwrap();
        assert_eq!((arrived.len(), is_reset), (words.len(), true));
        assert!(arrived == words);
    }
}

#[test]
fn an_early_answer_to_a_long_upload_arrives() {
    // It reads the head alone, answers and closes: the system resets, since there is more to read.
    let too_large = |mut tcp: TcpStream| {
        tcp.read_exact(&mut [0; 1000])?;
        tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\n\r\n")?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("http", service(too_large), "")]);
    for _ in 0..20 {
        let mut tcp = connect(tunnel.ports[1]);
        let block = vec![0; 64 * 1024];
        // The upload goes on until it breaks, which the answer precedes.
        while tcp.write_all(&block).is_ok() {}
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert_eq!(answer, b"HTTP/1.1 413 Content Too Large\r\n\r\n");
    }
}

#[cfg(unix)]
#[test]
fn an_early_answer_of_a_unix_socket_arrives() {
    let path = std::env::temp_dir().join(format!("adit-ends-{}.sock", std::process::id()));
    common::unix_service(&path, |mut client| {
        client.read_exact(&mut [0; 1000])?;
        client.write_all(b"too large")
    });
    let echo = format!("tcp = \"{}\"", service(echo));
    let tunnel = Tunnel::start_written(&[("echo", echo), ("unix", format!("unix = {path:?}"))]);
    for _ in 0..20 {
        let mut tcp = connect(tunnel.ports[1]);
        let block = vec![0; 64 * 1024];
        while tcp.write_all(&block).is_ok() {}
        let (answer, is_reset) = read_to_reset(&mut tcp);
        assert_eq!((answer.as_slice(), is_reset), (&b"too large"[..], false));
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_client_that_is_gone_ends_its_stuck_upload() {
    let (heard, hearing) = mpsc::channel();
    let stuck = move |tcp: TcpStream| {
        // It reads nothing, and learns of the end from the error alone.
        let end = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(50));
            tcp.take_error()
        });
        let error = end.take(1_000).find_map(|error| error.ok().flatten());
        heard.send(error.map(|error| error.kind())).map_err(io::Error::other)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("stuck", service(stuck), "")]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![0; 64 * 1024];
    while tcp.write(&block).is_ok() {}
    reset(&tcp).unwrap();
    drop(tcp);
    assert_eq!(hearing.recv_timeout(LIMIT).unwrap(), Some(ErrorKind::ConnectionReset));
}

/// Returns a service that sends and never ends, and what became of each of its connections.
fn endless() -> (std::net::SocketAddr, mpsc::Receiver<ErrorKind>) {
    let (heard, hearing) = mpsc::channel();
    let send = move |mut tcp: TcpStream| {
        let block = [7; 1000];
        let end = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(1));
            tcp.write_all(&block)
        });
        let error = end.into_iter().find_map(Result::err).expect("an error of the socket");
        heard.send(error.kind()).map_err(io::Error::other)
    };
    (service(send), hearing)
}

#[cfg(unix)]
#[test]
fn a_second_signal_resets_both_sides_within_a_moment() {
    for ends_connector in [true, false] {
        let (address, hearing) = endless();
        let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("endless", address, "")]);
        let mut tcp = connect(tunnel.ports[1]);
        tcp.read_exact(&mut [0; 1000]).unwrap();
        let program = if ends_connector { &tunnel.connector } else { &tunnel.agent };
        program.terminate();
        program.says("shutting down");
        program.terminate();
        let begin = std::time::Instant::now();
        let (_, is_reset) = read_to_reset(&mut tcp);
        assert!(is_reset, "the client takes what it has for the whole");
        assert_eq!(hearing.recv_timeout(LIMIT).unwrap(), ErrorKind::ConnectionReset);
        // Without a notice the other side waits for its heartbeat; the drain takes 5 s.
        assert!(begin.elapsed() < Duration::from_millis(2_900), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_killed_program_resets_its_own_side() {
    let (address, hearing) = endless();
    let mut tunnel = Tunnel::start(&[("echo", service(echo), ""), ("endless", address, "")]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.read_exact(&mut [0; 1000]).unwrap();
    tunnel.connector.kill();
    assert_eq!(hearing.recv_timeout(LIMIT).unwrap(), ErrorKind::ConnectionReset);
    // The agent sees it by its heartbeat.
    assert!(read_to_reset(&mut tcp).1, "the client takes what it has for the whole");
    let mut tcp = connect(tunnel.ports[0]);
    tunnel.agent.kill();
    assert!(read_to_reset(&mut tcp).1, "the client takes what it has for the whole");
}

#[test]
fn a_clean_end_stays_one() {
    let bye = |mut tcp: TcpStream| {
        tcp.write_all(b"bye")?;
        tcp.shutdown(Shutdown::Write)?;
        tcp.read_to_end(&mut Vec::new()).map(drop)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("bye", service(bye), "")]);
    for _ in 0..20 {
        let mut tcp = connect(tunnel.ports[1]);
        tcp.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_reset(&mut tcp), (b"bye".to_vec(), false));
    }
}
