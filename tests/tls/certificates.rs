//! Certificates made for a test: a root, and what it has signed.

use adjourn::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("the root of this test")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is entropy");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("it signs itself") }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Chain and key in PEM.
    pub(crate) fn files_for(&self, names: &[&str]) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("there is entropy");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn identity_for(&self, names: &[&str]) -> Identity {
        let (chain, key) = self.files_for(names);
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("what rcgen makes is understood")
    }
}
