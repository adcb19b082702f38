//! The revocation lists in force (RFC 5280 §5), one for each authority. It decides which list
//! replaces one: it is signed by the authority, and not older than the one in force. It reads no
//! file.

use std::collections::BTreeMap;

use adit_tokio::core::tls::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// The lists in force, by the name of their authority in DER.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RevocationLists {
    by_issuer: BTreeMap<Vec<u8>, RevocationList>,
}

/// A list that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RevocationList {
    age: Age,
    der: Vec<u8>,
}

/// How old a list is among those of its authority: by its number, or by its time if it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Age {
    /// The number in big-endian bytes without leading zeros.
    number: Option<Vec<u8>>,
    /// Seconds since the Unix epoch.
    signed: i64,
}

impl Age {
    fn is_older_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(one), Some(two)) => (one.len(), one) < (two.len(), two),
            (None, Some(_)) | (Some(_), None) | (None, None) => self.signed < other.signed,
        }
    }
}

impl RevocationLists {
    /// Returns the lists that are in force after those of a PEM text were added. Of several lists
    /// of one authority the newest counts, and the list of an authority that the text leaves out
    /// stays in force. `authorities` are the certificates that may have signed one.
    ///
    /// # Errors
    /// Why the text is refused as a whole: the lists in force stay then.
    pub(crate) fn with_pem(
        &self,
        pem: &[u8],
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, String> {
        let mut new: BTreeMap<Vec<u8>, RevocationList> = BTreeMap::new();
        for list in CertificateRevocationListDer::pem_slice_iter(pem) {
            let list = list.map_err(|error| format!("this is not PEM: {error}"))?;
            let (issuer, list) = check(&list, authorities)?;
            if new.get(&issuer).is_none_or(|other| !list.age.is_older_than(&other.age)) {
                new.insert(issuer, list);
            }
        }
        if new.is_empty() {
            return Err("there is no revocation list in it".to_owned());
        }
        let mut all = self.clone();
        for (issuer, list) in new {
            if all.by_issuer.get(&issuer).is_some_and(|old| list.age.is_older_than(&old.age)) {
                return Err("the list is older than the one in force".to_owned());
            }
            all.by_issuer.insert(issuer, list);
        }
        Ok(all)
    }

    /// Returns the lists as one PEM text.
    pub(crate) fn pem(&self) -> String {
        let pem = |list: &RevocationList| {
            let body = data_encoding::BASE64_MIME.encode(&list.der);
            format!("-----BEGIN X509 CRL-----\n{body}-----END X509 CRL-----\n")
        };
        self.by_issuer.values().map(pem).collect()
    }
}

/// Checks that one of the authorities signed a list. Returns the name of the authority as well.
fn check(
    der: &[u8],
    authorities: &[CertificateDer<'static>],
) -> Result<(Vec<u8>, RevocationList), String> {
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| format!("this is no revocation list: {error}"))?;
    let issuer = list.tbs_cert_list.issuer.as_raw();
    let mut known = authorities
        .iter()
        .filter_map(|authority| X509Certificate::from_der(authority).ok())
        .filter(|(_, authority)| authority.subject().as_raw() == issuer)
        .peekable();
    if known.peek().is_none() {
        return Err(format!("the list is of another CA: {}", list.issuer()));
    }
    let may_sign = |authority: &X509Certificate<'_>| {
        authority.key_usage().ok().flatten().is_none_or(|usage| usage.value.crl_sign())
    };
    if !known.any(|(_, authority)| may_sign(&authority) && has_signed(&authority, &list)) {
        return Err(format!("the signature is not that of its CA, {}", list.issuer()));
    }
    let number = list.crl_number().map(|number| {
        let bytes = number.to_bytes_be();
        bytes.into_iter().skip_while(|byte| *byte == 0).collect()
    });
    let age = Age { number, signed: list.last_update().timestamp() };
    Ok((issuer.to_vec(), RevocationList { age, der: der.to_vec() }))
}

fn has_signed(authority: &X509Certificate<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let key = &authority.public_key().subject_public_key.data;
    let (signed, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
    let provider = default_provider();
    let mut algorithms = provider.signature_verification_algorithms.all.iter();
    algorithms.any(|algorithm| algorithm.verify_signature(key, signed, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
        KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    };

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
    }

    fn authority(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), der }
    }

    fn list(authority: &Authority, number: u64, serial: u64) -> String {
        let day = rcgen::date_time_ymd(2026, 1, 1);
        CertificateRevocationListParams {
            this_update: day,
            next_update: rcgen::date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: day,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&authority.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }

    fn refused(
        lists: &RevocationLists,
        pem: &str,
        authorities: &[CertificateDer<'static>],
    ) -> String {
        lists.with_pem(pem.as_bytes(), authorities).unwrap_err()
    }

    #[test]
    fn a_list_is_replaced_by_one_that_is_not_older() {
        let ca = authority("one");
        let authorities = [ca.der.clone()];
        let with = |lists: &RevocationLists, number| {
            lists.with_pem(list(&ca, number, number).as_bytes(), &authorities)
        };
        let second = with(&RevocationLists::default(), 2).unwrap();
        assert_eq!(with(&second, 1).unwrap_err(), "the list is older than the one in force");
        assert!(with(&second, 2).is_ok());
        let third = with(&second, 256).unwrap();
        assert!(with(&third, 255).is_err(), "numbers are compared, not their bytes");
        assert!(third.pem().starts_with("-----BEGIN X509 CRL-----\n"));
    }

    #[test]
    fn what_is_no_list_of_the_authority_is_refused() {
        let (ca, other, twin) = (authority("one"), authority("two"), authority("one"));
        let (authorities, none) = ([ca.der.clone()], RevocationLists::default());
        for empty in ["", "no list"] {
            assert_eq!(refused(&none, empty, &authorities), "there is no revocation list in it");
        }
        let broken = "-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n";
        assert!(refused(&none, broken, &authorities).starts_with("this is not PEM: "));
        let said = refused(&none, &list(&other, 1, 1), &authorities);
        assert_eq!(said, "the list is of another CA: CN=two");
        let said = refused(&none, &list(&twin, 1, 1), &authorities);
        assert_eq!(said, "the signature is not that of its CA, CN=one");
    }

    #[test]
    fn the_list_of_an_authority_that_is_left_out_stays_in_force() {
        let (one, two) = (authority("one"), authority("two"));
        let authorities = [one.der.clone(), two.der.clone()];
        let both = list(&one, 1, 1) + &list(&two, 1, 1);
        let both = RevocationLists::default().with_pem(both.as_bytes(), &authorities).unwrap();
        let after = both.with_pem(list(&one, 2, 1).as_bytes(), &authorities).unwrap();
        assert_eq!(after.by_issuer.len(), 2);
        assert_eq!(after.pem().matches("BEGIN").count(), 2);
    }
}
