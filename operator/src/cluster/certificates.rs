//! The cluster's own authority and the certificates of its servers. Pure but for the randomness of the keys.
//!
//! Nothing is parsed back: what a certificate is for stands in annotations of its Secret ([`Record`]).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use snafu::{ResultExt, Snafu};
use time::{Duration, OffsetDateTime};

use crate::canonical;

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const SERVER_LIFE: Duration = Duration::days(365);
/// At two thirds of its life a certificate is renewed.
const RENEWAL: SignedDuration = SignedDuration::from_hours(365 * 24 * 2 / 3);
/// Clocks of nodes differ.
const BACKDATED: Duration = Duration::minutes(10);

const NAMES: &str = "selextract.io/certificate-names";
const AUTHORITY: &str = "selextract.io/certificate-authority";
const RENEW_AFTER: &str = "selextract.io/certificate-renew-after";

/// Why a certificate could not be made.
#[derive(Debug, Snafu)]
pub enum CertificateError {
    /// A name or a key was refused.
    #[snafu(display("cannot make the certificate for {subject}"))]
    Make {
        /// Whom it was for.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct KeyAndCertificate {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// What a server certificate was made for, as annotations of its Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    names: String,
    authority: String,
    renew_after: Timestamp,
}

impl Record {
    /// What a certificate made now is for.
    pub fn new(names: &[String], authority: &str, now: Timestamp) -> Self {
        Self {
            names: names.join(","),
            authority: fingerprint(authority),
            renew_after: now.saturating_add(RENEWAL).unwrap_or(now),
        }
    }

    /// Reads the annotations; `None` where one is missing or unreadable.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            names: annotations.get(NAMES)?.clone(),
            authority: annotations.get(AUTHORITY)?.clone(),
            renew_after: annotations.get(RENEW_AFTER)?.parse().ok()?,
        })
    }

    /// The annotations to write.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let renew_after = self.renew_after.to_string();
        [
            (NAMES, self.names.clone()),
            (AUTHORITY, self.authority.clone()),
            (RENEW_AFTER, renew_after),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Whether the certificate still serves: the same names, the same authority, not yet due.
    pub fn serves(&self, names: &[String], authority: &str, now: Timestamp) -> bool {
        self.names == names.join(",") && self.authority == fingerprint(authority) && now < self.renew_after
    }
}

/// Makes the authority of a cluster, for ten years.
///
/// # Errors
/// When the library refuses the name.
pub fn create_authority(cluster: &str, now: Timestamp) -> Result<KeyAndCertificate, CertificateError> {
    let make = || {
        let key = KeyPair::generate()?;
        let certificate = authority_params(cluster, now)?.self_signed(&key)?;
        Ok(KeyAndCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    };
    make().context(MakeSnafu { subject: cluster })
}

/// Makes a server certificate for these DNS names, for one year.
///
/// # Errors
/// When a name is no DNS name or the authority's key cannot be read.
pub fn issue(
    cluster: &str,
    authority_key: &str,
    names: &[String],
    now: Timestamp,
) -> Result<KeyAndCertificate, CertificateError> {
    let make = || {
        let issuer = Issuer::new(authority_params(cluster, now)?, KeyPair::from_pem(authority_key)?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, names.first().map_or("selextract", String::as_str));
        (params.not_before, params.not_after) = validity(now, SERVER_LIFE);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(KeyAndCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    };
    make().context(MakeSnafu {
        subject: names.join(", "),
    })
}

/// The authority's parameters; the distinguished name depends on the cluster alone, so that later certificates chain to it.
fn authority_params(cluster: &str, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // X.509 allows 64 characters in a common name; namespace and name may be longer together.
    let cluster: String = cluster.chars().take(64).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, cluster);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Selextract cluster authority");
    (params.not_before, params.not_after) = validity(now, AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn validity(now: Timestamp, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from_unix_timestamp(now.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (now - BACKDATED, now + life)
}

fn fingerprint(certificate: &str) -> String {
    canonical::hash_text(certificate.trim())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::WebPkiServerVerifier,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    use super::*;

    fn names() -> Vec<String> {
        vec![
            "shop-api-internal.demo.svc".into(),
            "shop-api-internal.demo.svc.cluster.local".into(),
        ]
    }

    fn verify(authority: &str, server: &str, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), default_provider().into())
            .build()
            .unwrap();
        let server = CertificateDer::from_pem_slice(server.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            verifier.as_ref(),
            &server,
            &[],
            &name,
            &[],
            UnixTime::now(),
        )
        .map(|_| ())
    }

    #[test]
    fn a_server_certificate_is_trusted_for_its_names_and_no_other() {
        let now = Timestamp::now();
        let authority = create_authority("demo/shop", now).unwrap();
        let server = issue("demo/shop", &authority.key, &names(), now).unwrap();
        assert_eq!(
            verify(
                &authority.certificate,
                &server.certificate,
                "shop-api-internal.demo.svc"
            ),
            Ok(())
        );
        assert!(verify(&authority.certificate, &server.certificate, "other.demo.svc").is_err());
    }

    #[test]
    fn a_certificate_of_another_authority_is_not_trusted() {
        let now = Timestamp::now();
        let one = create_authority("demo/shop", now).unwrap();
        let other = create_authority("demo/shop", now).unwrap();
        let server = issue("demo/shop", &other.key, &names(), now).unwrap();
        assert!(verify(&one.certificate, &server.certificate, "shop-api-internal.demo.svc").is_err());
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_when_names_or_authority_change() {
        let now = Timestamp::now();
        let record = Record::read(&Record::new(&names(), "ca", now).annotations()).unwrap();
        assert!(record.serves(&names(), "ca", now + SignedDuration::from_hours(243 * 24)));
        assert!(!record.serves(&names(), "ca", now + SignedDuration::from_hours(244 * 24)));
        assert!(!record.serves(&names()[..1], "ca", now));
        assert!(!record.serves(&names(), "another ca", now));
    }

    #[test]
    fn a_secret_without_the_record_is_not_taken_for_a_certificate() {
        assert_eq!(Record::read(&BTreeMap::new()), None);
    }
}
