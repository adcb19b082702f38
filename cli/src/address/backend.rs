//! Address of a service as the connector reaches it: a TCP port or a Unix socket. It decides how
//! that is written in one text; it never connects.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::host_port::LOCALHOST;
use super::{HostPort, in_brackets};

/// Prefix of the path of a Unix socket.
const UNIX: &str = "unix:";

/// The address at which a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Resolved for every connection.
    Tcp(HostPort),
    /// The path of a listening stream socket, looked up for every connection.
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Backend {
    /// Returns a Unix socket, if this system has them and they can have this path.
    ///
    /// # Errors
    /// One sentence with the next step.
    #[cfg(unix)]
    pub(crate) fn unix(path: PathBuf) -> Result<Self, String> {
        use std::os::unix::net::SocketAddr;
        if path.as_os_str().is_empty() {
            return Err("a Unix socket needs a path; write it like \"unix:/run/app.sock\"".into());
        }
        if path.starts_with("~") {
            let sentence = "only a shell knows what \"~\" is; write the whole path";
            return Err(format!("{}: {sentence}", path.display()));
        }
        SocketAddr::from_pathname(&path).map_err(|error| {
            format!("{}: no Unix socket can be there: {error}; choose another path", path.display())
        })?;
        Ok(Self::Unix(path))
    }

    /// Returns an error, since this system has no Unix sockets.
    ///
    /// # Errors
    /// One sentence with the next step.
    #[cfg(not(unix))]
    pub(crate) fn unix(path: PathBuf) -> Result<Self, String> {
        let path = path.display();
        Err(format!("{path}: this system has no Unix sockets; use a TCP port of this machine"))
    }
}

impl Backend {
    /// Returns the port of a TCP service.
    pub(crate) const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}

impl From<HostPort> for Backend {
    fn from(address: HostPort) -> Self {
        Self::Tcp(address)
    }
}

/// `3000`, which is a port of this machine, `host:port` or `unix:/path`.
impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Self::unix(path.into());
        }
        if let Some(hint) = hint(text) {
            return Err(hint);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let address = if is_number { format!("{LOCALHOST}:{text}") } else { text.to_owned() };
        HostPort::try_from(address).map(Self::Tcp).map_err(|_| {
            let forms = "\"3000\", \"host:3000\" or \"unix:/run/app.sock\"";
            format!("\"{text}\" is no port, host and port, or Unix socket; write it like {forms}")
        })
    }
}

/// Returns the error for a target that would be read as something else than was meant, or that a
/// hint helps.
fn hint(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    if scheme.eq_ignore_ascii_case("udp") {
        return Some(format!(
            "\"{text}\": adit carries TCP and Unix sockets, and no UDP service; expose a TCP port"
        ));
    }
    if scheme.eq_ignore_ascii_case("tcp") || rest.starts_with("//") {
        let plain = rest.trim_start_matches('/').trim_end_matches('/');
        return Some(format!("\"{text}\": a target has no scheme; write it like \"{plain}\""));
    }
    if text.starts_with(['/', '~', '.']) {
        return Some(format!(
            "\"{text}\" is a path; a Unix socket is written like \"{UNIX}{}\"",
            text.replacen('~', "$HOME", 1)
        ));
    }
    in_brackets(text).map(|written| {
        format!("\"{text}\" is an IPv6 address and a port; write it like \"{written}\"")
    })
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Backend>().unwrap().to_string()
    }

    #[test]
    fn a_bare_port_is_one_of_this_machine() {
        assert_eq!(shown("3000"), "localhost:3000");
        assert_eq!(shown("65535"), "localhost:65535");
    }

    #[test]
    fn a_host_and_a_port_survive_being_written_out() {
        for text in ["db.internal:5432", "192.0.2.1:80", "[::1]:80"] {
            assert_eq!(shown(text), text);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_path_of_a_unix_socket_survives_being_written_out() {
        for text in ["unix:/run/app.sock", "unix:app.sock", "unix:/a:80"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_is_none_of_the_three_is_answered_with_all_of_them() {
        for text in ["", "0", "65536", "host", "host:", "-1"] {
            let said = text.parse::<Backend>().unwrap_err();
            assert!(said.contains("; write it like \"3000\""), "{text}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn what_was_meant_otherwise_is_answered_with_how_to_write_it() {
        for (text, hint) in [
            ("udp:53", "no UDP service"),
            ("tcp:80", "write it like \"80\""),
            ("http://host:80", "write it like \"host:80\""),
            ("tcp://host:80/", "write it like \"host:80\""),
            ("/run/app.sock", "\"unix:/run/app.sock\""),
            ("~/app.sock", "\"unix:$HOME/app.sock\""),
            ("./app.sock", "\"unix:./app.sock\""),
            ("::1:4433", "write it like \"[::1]:4433\""),
            ("unix:~/app.sock", "write the whole path"),
        ] {
            let said = text.parse::<Backend>().unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        assert!("udp.example:53".parse::<Backend>().is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_no_unix_socket_can_have_is_refused() {
        assert!("unix:".parse::<Backend>().unwrap_err().contains("needs a path; write"));
        let longest = format!("unix:/{}", "a".repeat(106));
        assert!(longest.parse::<Backend>().is_ok());
        let said = format!("{longest}aa").parse::<Backend>().unwrap_err();
        assert!(
            said.contains("no Unix socket can be there") && said.contains("; choose"),
            "{said}"
        );
    }
}
