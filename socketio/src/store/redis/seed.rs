//! The server that is asked first: the one of the URL, or the primary that Sentinels name.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo as _, Value};

use super::values;
use crate::store::StoreError;

/// The scheme of URLs that name Sentinels.
const SENTINELS: &str = "redis+sentinel://";
const SENTINEL_PORT: &str = "26379";

#[derive(Clone, Debug)]
pub(super) struct Seed {
    /// The server; with Sentinels what does not depend on which one it is: user, password, database.
    client: Client,
    sentinels: Option<Sentinels>,
}

#[derive(Clone, Debug)]
struct Sentinels {
    clients: Arc<[Client]>,
    primary: Arc<str>,
}

impl Seed {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let Some(rest) = url.strip_prefix(SENTINELS) else {
            return Ok(Self { client: Client::open(url)?, sentinels: None });
        };
        let malformed =
            || StoreError::Failed("not redis+sentinel://HOST[:PORT],../PRIMARY[/DATABASE]".into());
        let (hosts, path) = rest.split_once('/').ok_or_else(malformed)?;
        let (user, hosts) = hosts.rsplit_once('@').unwrap_or(("", hosts));
        let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
        if primary.is_empty() {
            return Err(malformed());
        }
        let at = if user.is_empty() { "" } else { "@" };
        let client = Client::open(format!("redis://{user}{at}localhost/{database}"))?;
        let open = |host: &str| {
            let known = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if known { String::new() } else { format!(":{SENTINEL_PORT}") };
            Client::open(format!("redis://{host}{port}"))
        };
        let clients = hosts.split(',').map(open).collect::<Result<_, _>>()?;
        Ok(Self { client, sentinels: Some(Sentinels { clients, primary: primary.into() }) })
    }

    /// Connects to it, or to `host:port` with its settings.
    pub(super) fn connect(&self, address: Option<&str>, timeout: Duration) -> Result<Connection, StoreError> {
        let named = match (&self.sentinels, address) {
            (Some(sentinels), None) => Some(sentinels.find(timeout)?),
            (_, address) => address.map(str::to_owned),
        };
        let client = match named.as_deref().and_then(|address| address.rsplit_once(':')) {
            None => self.client.clone(),
            Some((host, port)) => {
                let port = port.parse().map_err(|_| values::damaged())?;
                let info = self.client.get_connection_info().clone();
                Client::open(info.set_addr(ConnectionAddr::Tcp(host.into(), port)).into_connection_info()?)?
            }
        };
        let mut connection = open(&client, timeout)?;
        if self.sentinels.is_some() {
            expect_primary(&mut connection)?;
        }
        Ok(connection)
    }
}

impl Sentinels {
    /// `host:port` of the primary, by the first Sentinel that knows.
    fn find(&self, timeout: Duration) -> Result<String, StoreError> {
        let mut failed = StoreError::Failed("no Sentinel answers".into());
        for client in &*self.clients {
            let asked = open(client, timeout).and_then(|mut sentinel| {
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.primary);
                Ok(command.query::<Option<(String, u16)>>(&mut sentinel)?)
            });
            match asked {
                Ok(Some((host, port))) => return Ok(format!("{host}:{port}")),
                Ok(None) => failed = StoreError::Failed("a Sentinel does not know the primary".into()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn open(client: &Client, timeout: Duration) -> Result<Connection, StoreError> {
    let connection = client.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    Ok(connection)
}

/// A Sentinel may not know yet that the server is a replica again.
fn expect_primary(connection: &mut Connection) -> Result<(), StoreError> {
    let role: Value = redis::cmd("ROLE").query(connection)?;
    let role = values::list(&role).and_then(<[Value]>::first).and_then(values::text);
    match role {
        Some("master") => Ok(()),
        _ => Err(StoreError::Failed("the server that Sentinels name is no primary".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Option<(Vec<String>, String, i64)> {
        let seed = Seed::new(url).ok()?;
        let sentinels = seed.sentinels?;
        let address = |client: &Client| client.get_connection_info().addr().to_string();
        let database = seed.client.get_connection_info().redis_settings().db();
        Some((sentinels.clients.iter().map(address).collect(), sentinels.primary.to_string(), database))
    }

    #[test]
    fn sentinels_are_named_in_one_url() {
        let two = (vec!["a:26379".to_owned(), "b:17".to_owned()], "chat".to_owned(), 0);
        assert_eq!(parts("redis+sentinel://a,b:17/chat"), Some(two.clone()));
        assert_eq!(parts("redis+sentinel://user:secret@a,b:17/chat/3"), Some((two.0, two.1, 3)));
        for malformed in [
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel:///chat",
            "redis+sentinel://a,/chat",
        ] {
            assert_eq!(parts(malformed), None, "{malformed}");
        }
        assert!(Seed::new("redis://a/3").is_ok_and(|seed| seed.sentinels.is_none()));
    }
}
