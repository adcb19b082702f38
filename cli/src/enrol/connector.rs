//! The connector's answers: it signs for guests who hold an unspent invite, and for members who are
//! not revoked. The mesh decides who that is; this module reads the identity of the requester.

use adit_tokio::core::error::{Code, Failure};
use adit_tokio::core::tls::Credential;

use super::{EnrolmentRequest, EnrolmentResponse, MAX_LABEL};
use crate::identity::mesh::certificate::CertificateRequest;
use crate::identity::mesh::registry::id_among;
use crate::identity::mesh::{Denied, Mesh};

/// Answers one request, on the disk before it returns.
///
/// # Errors
/// The failure that the peer gets instead.
pub(crate) fn answer(
    mesh: &Mesh,
    credential: &Credential,
    ask: EnrolmentRequest,
) -> Result<EnrolmentResponse, Failure> {
    let malformed = |why: String| Failure::new(Code::ProtocolViolation, why);
    let done = match ask {
        EnrolmentRequest::Enrol { csr, label } => {
            if !credential.is_guest() {
                return Err(Failure::new(Code::Forbidden, "enrolment is for holders of an invite"));
            }
            let request = CertificateRequest::from_pem(&csr).map_err(malformed)?;
            mesh.enrol(credential.key, &request, &sanitised(&label))
        }
        EnrolmentRequest::Renew { csr } => {
            let Some(id) = id_among(&credential.names) else {
                return Err(Failure::new(Code::Forbidden, "renewal is for devices of this mesh"));
            };
            let request = CertificateRequest::from_pem(&csr).map_err(malformed)?;
            mesh.renew(id, &request)
        }
    };
    let (device, certified) = done.map_err(to_failure)?;
    let ca = mesh.ca_pem().map_err(|stop| to_failure(Denied::Broken(stop)))?;
    tracing::info!("issued a certificate to {}", device.title());
    Ok(EnrolmentResponse { device: device.id, certificate: certified.pem, ca })
}

/// Returns the failure that the peer receives: why it is refused, without the internal errors of
/// this machine.
fn to_failure(denied: Denied) -> Failure {
    match denied {
        Denied::Refused(refusal) => {
            tracing::warn!("no certificate was issued: {refusal}");
            Failure::new(Code::Forbidden, refusal.to_string())
        }
        Denied::Broken(stop) => {
            tracing::error!("no certificate was issued: {stop}");
            Failure::new(Code::Overloaded, "the connector cannot issue certificates at the moment")
        }
    }
}

/// Returns a label for people: what the device calls itself, without terminal control characters.
fn sanitised(label: &str) -> String {
    label
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(MAX_LABEL)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_holds_nothing_that_a_terminal_would_obey() {
        assert_eq!(sanitised("lap\u{1b}[31mtop\n é"), "lap31mtop");
        assert_eq!(sanitised(&"a".repeat(64)).len(), MAX_LABEL);
    }
}
