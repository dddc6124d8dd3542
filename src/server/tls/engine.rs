//! rustls, of either side, without buffers of its own: what is in records that came, and records to be sent. No transport here.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, CommonState, Error, InvalidMessage, ProtocolVersion, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};

use crate::{
    config::{TlsSession, TlsVersion, take_asked_name},
    error::{HandshakeError, TlsError},
};

/// The payload of one record, at most (RFC 8446 §5.1).
pub(super) const MAX_PAYLOAD: usize = 16 << 10;
/// What encryption adds to it, and to the one or two small records of its own that rustls may put before it.
const OVERHEAD: usize = 1 << 10;

pub(super) enum Engine {
    /// With the name that the client has asked for.
    Server(UnbufferedServerConnection, Option<Box<str>>),
    Client(UnbufferedClientConnection),
}

/// What records have brought.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the input that are done with.
    pub(super) used: usize,
    /// Application data may be written.
    pub(super) may_write: bool,
    /// The peer's `close_notify` came.
    pub(super) closed: bool,
    /// It cannot go on. What was put out before tells the peer.
    pub(super) failed: Option<TlsError>,
}

/// What is to be put into a record.
#[derive(Clone, Copy)]
pub(super) enum Seal<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

impl Engine {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(|connection| Self::Server(connection, None))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(Self::Client)
    }

    /// Takes in records. What they hold for the application goes to `take`, what is owed to the peer to `out`.
    pub(super) fn process(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Progress {
        self.drive(input, out, &mut take, None)
    }

    /// Puts `what` into a record at the end of `out`. `input` is what was taken in and is not used up; nothing but a part of a record.
    pub(super) fn seal(
        &mut self,
        what: Seal<'_>,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        match self.drive(input, out, &mut |_| {}, Some(what)).failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn drive(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        take: &mut impl FnMut(&[u8]),
        seal: Option<Seal<'_>>,
    ) -> Progress {
        let mut progress = Progress::default();
        loop {
            let rest = input.get_mut(progress.used..).unwrap_or_default();
            let goes_on = match self {
                Self::Server(connection, name) => {
                    let greets = connection.is_handshaking();
                    let goes_on = step(connection.process_tls_records(rest), out, take, seal, &mut progress);
                    if greets && let Some(asked) = take_asked_name() {
                        *name = Some(asked);
                    }
                    goes_on
                }
                Self::Client(connection) => {
                    step(connection.process_tls_records(rest), out, take, seal, &mut progress)
                }
            };
            // What has failed is not looked at again; an alert comes before input.
            let over = progress.failed.is_some() && !self.state().wants_write();
            if !goes_on || over {
                return progress;
            }
        }
    }

    fn state(&self) -> &CommonState {
        match self {
            Self::Server(connection, _) => connection,
            Self::Client(connection) => connection,
        }
    }

    /// What the handshake has agreed on.
    pub(super) fn describe(&mut self) -> TlsSession {
        let server_name = match self {
            Self::Server(_, name) => name.take(),
            Self::Client(_) => None,
        };
        let state = self.state();
        let version = match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            _ => TlsVersion::V1_3,
        };
        TlsSession {
            server_name,
            version,
            protocol: state.alpn_protocol().map(Into::into),
            peer_certificates: state.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        }
    }

    pub(super) const fn is_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }
}

/// Without keys.
impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_client() { "Client" } else { "Server" })
    }
}

/// The error of a session: its cause is for the hub, the kind for everybody.
pub(super) fn failed(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, HandshakeError::Tls(error))
}

/// Deals with one state. Says whether there is another one.
fn step<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    out: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8]),
    seal: Option<Seal<'_>>,
    progress: &mut Progress,
) -> bool {
    let mut used = status.discard;
    let goes_on = match status.state {
        Ok(ConnectionState::ReadTraffic(mut records)) => {
            while let Some(record) = records.next_record() {
                match record {
                    Ok(record) => {
                        used += record.discard;
                        take(record.payload);
                    }
                    Err(error) => progress.failed = Some(TlsError::from(&error)),
                }
            }
            true
        }
        Ok(ConnectionState::EncodeTlsData(mut encoder)) => {
            let encoded = append(out, OVERHEAD, |room| {
                encoder.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => required_size,
                    EncodeError::AlreadyEncoded => 0,
                })
            });
            encoded || fail(progress, TlsError::Internal)
        }
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            // It is before all that follows.
            sent.done();
            true
        }
        Ok(ConnectionState::PeerClosed) => {
            progress.closed = true;
            true
        }
        Ok(ConnectionState::WriteTraffic(mut writer)) => {
            progress.may_write = true;
            let sealed = seal.is_none_or(|what| {
                append(out, MAX_PAYLOAD + OVERHEAD, |room| {
                    let sealed = match what {
                        Seal::Data(bytes) => writer.encrypt(bytes, room),
                        Seal::CloseNotify => writer.queue_close_notify(room),
                    };
                    sealed.map_err(|error| match error {
                        // Settings may ask for smaller records: then there are more of them.
                        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                            required_size
                        }
                        EncryptError::EncryptExhausted => 0,
                    })
                })
            });
            if !sealed {
                fail(progress, TlsError::Internal);
            }
            false
        }
        Ok(ConnectionState::BlockedHandshake) => false,
        Ok(ConnectionState::Closed) => {
            progress.closed = true;
            false
        }
        // Early data is not accepted, and other states are not known.
        Ok(_) => fail(progress, TlsError::Internal),
        Err(error) => {
            progress.failed.get_or_insert_with(|| TlsError::from(&error));
            true
        }
    };
    progress.used += used;
    goes_on
}

fn fail(progress: &mut Progress, error: TlsError) -> bool {
    progress.failed.get_or_insert(error);
    false
}

/// Lets `write` append to `out`; it says how much it did, or how much room it needs. Says whether it did.
fn append(out: &mut Vec<u8>, room: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) -> bool {
    let start = out.len();
    let mut room = room;
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return true;
            }
            Err(needed) => room = needed.min(1 << 20),
        }
    }
    out.truncate(start);
    false
}

impl From<&Error> for TlsError {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::AlertReceived(AlertDescription::Unknown(code)) => Self::Alert(*code),
            Error::AlertReceived(alert) => Self::Alert(u8::from(*alert)),
            Error::NoCertificatesPresented => Self::NoPeerCertificate,
            Error::InvalidCertificate(_) | Error::UnsupportedNameType => Self::PeerCertificate,
            // It is how rustls says that nobody has a certificate for the name.
            Error::General(_) => Self::NoIdentity,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => Self::Protocol,
            _ => Self::Internal,
        }
    }
}
