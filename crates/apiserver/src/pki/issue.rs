//! Signing: the authority itself, and one certificate for a profile.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::{extensions::GeneralName, pem::Pem};

use super::{KeyedCertificate, PkiError, read_if_present, write};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * DAY.as_secs());
const LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());
/// A certificate with less than this left is made again at start.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * DAY.as_secs());
/// Certificates are valid from a little earlier, for clients whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// What one certificate says.
pub(super) struct Profile<'a> {
    /// The name of its files, without extension.
    pub file: &'a str,
    /// The user, for a client.
    pub common_name: &'a str,
    /// The user's group, for a client.
    pub organization: Option<&'a str>,
    /// DNS names and addresses; a profile that has any is a server's.
    pub alternative_names: Vec<String>,
}

/// The certificate authority with its key.
pub(super) struct Authority {
    /// PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::Certificate { path, source }
        };
        if let (Some(certificate), Some(key)) = (read_if_present(&certificate_path)?, read_if_present(&key_path)?) {
            let key = KeyPair::from_pem(&key).map_err(at(&key_path))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(at(&certificate_path))?;
            return Ok(Self { certificate, issuer });
        }
        let key = KeyPair::generate().map_err(at(&key_path))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + AUTHORITY_LIFETIME).into();
        let certificate = params.self_signed(&key).map_err(at(&certificate_path))?.pem();
        // The key goes first: a certificate without its key would be taken for a good authority's half.
        write(&key_path, 0o600, &key.serialize_pem())?;
        write(&certificate_path, 0o644, &certificate)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The profile's certificate as it lies in `dir`, or a new one when that is missing or no longer good.
    pub fn issue(&self, dir: &Path, profile: &Profile<'_>) -> Result<KeyedCertificate, PkiError> {
        let certificate_path = dir.join(format!("{}.crt", profile.file));
        let key_path = dir.join(format!("{}.key", profile.file));
        if let (Some(certificate), Some(key)) = (read_if_present(&certificate_path)?, read_if_present(&key_path)?)
            && KeyPair::from_pem(&key).is_ok_and(|key| self.is_good(&certificate, &key, profile))
        {
            return Ok(KeyedCertificate {
                certificate,
                key,
                certificate_path,
                key_path,
            });
        }
        let error = |source| PkiError::Certificate {
            path: certificate_path.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(error)?;
        let mut params = CertificateParams::new(profile.alternative_names.clone()).map_err(error)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = profile.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, profile.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![if profile.alternative_names.is_empty() {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + LIFETIME).into();
        let certificate = params.signed_by(&key, &self.issuer).map_err(error)?.pem();
        let key = key.serialize_pem();
        write(&key_path, 0o600, &key)?;
        write(&certificate_path, 0o644, &certificate)?;
        Ok(KeyedCertificate {
            certificate,
            key,
            certificate_path,
            key_path,
        })
    }

    fn is_good(&self, certificate: &str, key: &KeyPair, profile: &Profile<'_>) -> bool {
        let Some(Ok(pem)) = Pem::iter_from_buffer(certificate.as_bytes()).next() else {
            return false;
        };
        let Ok(found) = pem.parse_x509() else {
            return false;
        };
        let Some(Ok(authority)) = Pem::iter_from_buffer(self.certificate.as_bytes()).next() else {
            return false;
        };
        let Ok(authority) = authority.parse_x509() else {
            return false;
        };
        let common_name = found
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        let ends_late = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|now| found.validity().not_after.timestamp() > (now + RENEW_BEFORE).as_secs().cast_signed());
        let alternative_names: Vec<String> = found
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(alternative_name)
                    .collect()
            })
            .unwrap_or_default();
        ends_late
            && common_name == Some(profile.common_name)
            && profile
                .alternative_names
                .iter()
                .all(|name| alternative_names.contains(name))
            && found.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(key).as_slice()
            && found.verify_signature(Some(authority.public_key())).is_ok()
    }
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|octets| std::net::IpAddr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|octets| std::net::IpAddr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}
