//! The core's examples, which embed it in their own loops, against the program.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Tunnel, echo, service};

/// Builds the core's examples. Returns the folder they are in.
fn examples() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    // With the features of the workspace's tests, or most of the core's dependencies are built
    // again.
    build.args(["build", "--quiet", "--workspace", "--examples"]);
    assert!(build.status().expect("cargo runs").success(), "the examples do not build");
    PathBuf::from(env!("CARGO_BIN_EXE_adit")).with_file_name("examples")
}

#[test]
fn an_embedded_core_echoes_through_the_program() {
    let folder = examples();
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    for example in ["blocking", "mio"] {
        let mut command = Command::new(folder.join(example));
        command.arg(tunnel.listen.to_string());
        for file in ["laptop-ca.pem", "laptop.pem", "laptop.key"] {
            command.arg(tunnel.directory.path(file));
        }
        let output = command.args(["connector", "echo", "1000"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.trim(), "all messages came back", "{example}");
    }
}
