//! Mistakes in the command line and in configuration files: exit code 2, one sentence on stderr, an
//! empty stdout.

#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use common::{Authority, Directory, Program, free_tcp, free_udp, run};

/// Returns the one error for a configuration.
fn said(role: &str, text: &str) -> String {
    let stderr = ended(role, text, 2);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().strip_prefix("adit: ").unwrap().to_owned()
}

/// Returns the error about an address that stays in use, after one warning.
fn said_of_address(role: &str, text: &str) -> String {
    let stderr = ended(role, text, 5);
    let (warning, sentence) = stderr.trim_end().rsplit_once('\n').unwrap();
    let sentence = sentence.strip_prefix("adit: ").unwrap();
    assert_eq!(warning.lines().filter(|line| line.contains("waiting: ")).count(), 1, "{stderr}");
    assert!(warning.contains(sentence), "{stderr}");
    sentence.to_owned()
}

/// Returns the stderr of a role that ends with a code.
fn ended(role: &str, text: &str, code: i32) -> String {
    let directory = Directory::new();
    Authority::new().issue(&directory, "me");
    let path = directory.write("config.toml", text);
    let output = run(&[role, "-c", path.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

const TLS: &str = "[tls]\nca = \"me-ca.pem\"\ncertificate = \"me.pem\"\nkey = \"me.key\"\n";
const SERVICE: &str = "[[service]]\nname = \"web\"\ntcp = \"127.0.0.1:80\"\n";

#[test]
fn a_misspelt_key_is_answered_with_the_one_that_was_meant() {
    let said = said("connector", &format!("lisen = \"127.0.0.1:1\"\n{TLS}{SERVICE}"));
    assert!(said.ends_with("unknown key \"lisen\"; did you mean \"listen\"?"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = said(
        "connector",
        &format!("listen = \"127.0.0.1:0\"\n{SERVICE}{}", TLS.replace("me.key", "no.key")),
    );
    assert!(said.contains("no.key: the key cannot be read: "), "{said}");
    assert!(said.ends_with("check the path in [tls]"), "{said}");
}

#[test]
fn a_key_that_is_no_key_is_named() {
    let said = said(
        "connector",
        &format!("listen = \"127.0.0.1:0\"\n{SERVICE}{}", TLS.replace("me.key", "me.pem")),
    );
    assert!(said.contains("no private key in the PEM text"), "{said}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = said_of_address("connector", &format!("listen = \"{address}\"\n{TLS}{SERVICE}"));
    assert!(said.starts_with(&format!("{address}: cannot use this UDP address: ")), "{said}");
}

#[test]
fn a_local_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = said_of_address(
        "agent",
        &format!(
            "{TLS}[connector]\naddress = \"127.0.0.1:1\"\nname = \"c\"\n\
             [[forward]]\nlisten = \"{address}\"\nservice = \"web\"\n"
        ),
    );
    assert!(said.contains("cannot listen on this TCP address"), "{said}");
}

#[test]
fn heartbeats_that_contradict_each_other_are_explained() {
    let text =
        format!("listen = \"{}\"\n{TLS}{SERVICE}[heartbeat]\ninterval = \"60s\"\n", free_udp());
    let said = said("connector", &text);
    assert!(said.contains("proves nothing"), "{said}");
}

#[test]
fn an_unknown_command_ends_with_2() {
    let output = run(&["conector"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("connector"));
}

#[test]
fn the_version_is_data() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        concat!("adit ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn the_help_has_examples_and_exit_codes() {
    let output = run(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("adit demo") && text.contains("Exit codes:"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new();
    let tls = Authority::new().issue(&directory, "me");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(directory.path("me.key"), open).unwrap();
    let text = format!(
        "{tls}[connector]\naddress = \"{}\"\nname = \"c\"\n\
         [[forward]]\nlisten = \"{}\"\nservice = \"web\"\n",
        free_udp(),
        free_tcp()
    );
    let path = directory.write("agent.toml", &text);
    let mut agent = Program::start("agent", &path, &["--give-up-after", "1ms"]);
    agent.wait();
    assert!(
        agent.log().contains("others may read this key (mode 644); run: chmod 600"),
        "{}",
        agent.log()
    );
}
