//! TCP through a connector and an agent, each a process of its own.

mod common;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use common::{LIMIT, Tunnel, connect, echo, echoes_at_last, free_tcp, service};
use socket2::SockRef;

fn reset(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_linger(Some(Duration::ZERO))
}

fn assert_refused(port: std::net::SocketAddr) {
    // On a busy machine the reset arrives before the call that connects has returned.
    let read = TcpStream::connect(port).and_then(|mut tcp| {
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.read(&mut [0])
    });
    assert_eq!(read.expect_err("nothing is to be read").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_come_back_as_they_were_sent() {
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("other", service(echo), "")]);
    let sent: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_be_bytes).collect();
    for &port in &tunnel.ports {
        let mut tcp = connect(port);
        let mut writer = tcp.try_clone().unwrap();
        let given = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&given)?;
            writer.shutdown(Shutdown::Write)
        });
        let mut received = Vec::new();
        tcp.read_to_end(&mut received).unwrap();
        writing.join().unwrap().unwrap();
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let answer = |mut tcp: TcpStream| {
        let mut question = Vec::new();
        tcp.read_to_end(&mut question)?;
        question.reverse();
        tcp.write_all(&question)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("late", service(answer), "")]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.write_all(b"question").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"noitseuq");
}

#[test]
fn a_half_closed_service_receives_the_rest() {
    let (heard, hearing) = mpsc::channel();
    let greet = move |mut tcp: TcpStream| {
        tcp.write_all(b"greeting")?;
        tcp.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest)?;
        heard.send(rest).map_err(io::Error::other)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("greeter", service(greet), "")]);
    let mut tcp = connect(tunnel.ports[1]);
    let mut greeting = Vec::new();
    tcp.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting, b"greeting");
    tcp.write_all(b"the rest").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hearing.recv_timeout(LIMIT).unwrap(), b"the rest");
}

#[test]
fn a_reset_by_the_service_is_a_reset_for_the_client() {
    let tunnel = Tunnel::start(&[
        ("echo", service(echo), ""),
        (
            "rude",
            service(|mut tcp| {
                tcp.read_exact(&mut [0])?;
                reset(&tcp)
            }),
            "",
        ),
    ]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.write_all(b"?").unwrap();
    assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_by_the_client_is_a_reset_for_the_service() {
    let (told, telling) = mpsc::channel();
    let listen = move |mut tcp: TcpStream| {
        tcp.write_all(b"!")?;
        let result = tcp.read(&mut [0]).map_err(|error| error.kind());
        told.send(result).map_err(io::Error::other)
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("listener", service(listen), "")]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.read_exact(&mut [0]).unwrap();
    reset(&tcp).unwrap();
    drop(tcp);
    assert_eq!(telling.recv_timeout(LIMIT).unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_slow_reader_slows_only_its_own_source() {
    let sleeper = |tcp: TcpStream| {
        std::thread::sleep(LIMIT);
        drop(tcp);
        Ok(())
    };
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("sleeper", service(sleeper), "")]);
    let mut tcp = connect(tunnel.ports[1]);
    tcp.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![0; 64 * 1024];
    let mut written = 0;
    while let Ok(count) = tcp.write(&block) {
        written += count;
        assert!(written < 256 << 20, "nothing pushes back");
    }
    assert!(echoes_at_last(tunnel.ports[0]), "another service suffers");
}

#[test]
fn a_service_that_is_down_is_a_refusal_and_others_go_on() {
    let down = free_tcp();
    let tunnel = Tunnel::start(&[("echo", service(echo), ""), ("down", down, "")]);
    let mut going_on = connect(tunnel.ports[0]);
    for _ in 0..3 {
        assert_refused(tunnel.ports[1]);
        going_on.write_all(b"still there?").unwrap();
        let mut answer = [0; 12];
        going_on.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still there?");
    }
    tunnel.connector.says(&format!("backend_unavailable: {down}: Connection refused"));
}

#[test]
fn a_service_is_for_the_devices_it_allows() {
    let address = service(echo);
    let tunnel = Tunnel::start(&[
        ("echo", address, "allow = [\"desk\", \"laptop\"]"),
        ("private", address, "allow = [\"desk\"]"),
        ("unknown", address, "absent"),
    ]);
    assert_refused(tunnel.ports[1]);
    assert_refused(tunnel.ports[2]);
    assert!(echoes_at_last(tunnel.ports[0]));
    for program in [&tunnel.connector, &tunnel.agent] {
        program.says("forbidden: laptop may not use \"private\"");
        program.says("forbidden: laptop may not use \"unknown\"");
    }
}

#[test]
fn hundreds_of_concurrent_connections_are_forwarded() {
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let mut all: Vec<_> = (0..300).map(|_| connect(tunnel.ports[0])).collect();
    for (index, tcp) in all.iter_mut().enumerate() {
        tcp.write_all(&index.to_be_bytes()).unwrap();
    }
    for (index, tcp) in all.iter_mut().enumerate() {
        let mut answer = [0; size_of::<usize>()];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(usize::from_be_bytes(answer), index);
    }
}

#[cfg(unix)]
#[test]
fn a_service_behind_a_unix_socket_hears_all_and_answers() {
    // The path of a socket is at most about a hundred bytes long, and the tests' own may be longer.
    let path = std::env::temp_dir().join(format!("adit-forward-{}.sock", std::process::id()));
    common::unix_service(&path, |mut client| {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard)?;
        heard.reverse();
        client.write_all(&heard)
    });
    let echo = format!("tcp = \"{}\"", service(echo));
    let tunnel = Tunnel::start_written(&[
        ("echo", echo),
        ("unix", format!("unix = {path:?}")),
        ("gone", "unix = \"/nonexistent/app.sock\"".into()),
    ]);
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut tcp = connect(tunnel.ports[1]);
    tcp.write_all(&sent).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    tcp.read_to_end(&mut received).unwrap();
    received.reverse();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
    std::fs::remove_file(&path).unwrap();

    assert_refused(tunnel.ports[1]);
    assert_refused(tunnel.ports[2]);
    tunnel.connector.says("backend_unavailable: /nonexistent/app.sock: ");
}
