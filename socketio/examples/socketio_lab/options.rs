//! The command line.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use adjourn::shutdown::{Pace, ShutdownPlan};
use adjourn_socketio::config::{
    ConnectPolicy, Cors, CorsOrigin, Durability, EmitPolicy, IdlePolicy, Recovery, SocketIoConfig,
};

/// Where sessions and rows are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreOption {
    Memory,
    Sqlite(String),
    /// The server's URL.
    Redis(String),
}

/// A protocol suite to be served instead of the lab's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Engine,
    Socket,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) store: StoreOption,
    /// Prefix of all Redis keys.
    pub(crate) stream: String,
    /// The password of `admin` in the namespace of the admin page.
    #[cfg(feature = "admin")]
    pub(crate) admin: Option<String>,
    pub(crate) full_sync: bool,
    pub(crate) log: bool,
    pub(crate) suite: Option<Suite>,
    /// PEM files: the certificate with its chain, and its key.
    pub(crate) tls_cert: Option<String>,
    pub(crate) tls_key: Option<String>,
    pub(crate) plan: ShutdownPlan,
    pub(crate) config: SocketIoConfig,
}

/// What is not in the configuration until all options are read.
struct Rest {
    recovery: Recovery,
    recover: bool,
    log_bytes: Option<u64>,
    idle: Option<Duration>,
    idle_warn: Duration,
    redis: Option<String>,
    adapter: Option<String>,
}

impl Options {
    /// Reads `--name=value` and `--name value`; `Err` says what is wrong.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut pairs = Vec::new();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").ok_or_else(|| format!("{arg:?} is no option"))?;
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                // Alone it says yes.
                None if name == "log" && args.peek().is_none_or(|next| next.starts_with("--")) => {
                    (name.to_owned(), "1".to_owned())
                }
                None => (name.to_owned(), args.next().ok_or_else(|| format!("--{name} needs a value"))?),
            };
            pairs.push((name, value));
        }
        let mut options = Self::defaults();
        let mut rest = Rest {
            recovery: Recovery::default(),
            recover: true,
            log_bytes: None,
            idle: None,
            idle_warn: Duration::from_secs(1),
            redis: None,
            adapter: None,
        };
        rest.recovery.window = Duration::from_mins(2);
        // A suite has defaults of its own, which other options may change.
        if let Some((_, suite)) = pairs.iter().find(|(name, _)| name == "protocol-suite") {
            options.use_suite(suite)?;
            rest.recover = false;
        }
        for (name, value) in &pairs {
            options.set(&mut rest, name, value)?;
        }
        options.finish(rest)
    }

    fn defaults() -> Self {
        let mut config = SocketIoConfig::default();
        config.times.ping_interval = Duration::from_secs(1);
        config.times.ping_timeout = Duration::from_millis(800);
        config.times.connect_timeout = Duration::from_secs(2);
        config.input.max_payload = 100_000;
        Self {
            port: 3000,
            store: StoreOption::Memory,
            stream: "sio-lab".to_owned(),
            #[cfg(feature = "admin")]
            admin: None,
            full_sync: false,
            log: false,
            suite: None,
            tls_cert: None,
            tls_key: None,
            plan: ShutdownPlan::soft(Duration::from_secs(1)),
            config,
        }
    }

    fn use_suite(&mut self, suite: &str) -> Result<(), String> {
        let config = &mut self.config;
        self.suite = Some(match suite {
            "engine" => {
                "/engine.io/".clone_into(&mut config.path);
                Suite::Engine
            }
            "socket" => Suite::Socket,
            other => return Err(format!("--protocol-suite={other}: engine or socket")),
        });
        config.times.ping_interval = Duration::from_millis(300);
        config.times.ping_timeout = Duration::from_millis(200);
        config.times.connect_timeout = Duration::from_secs(1);
        config.input.max_payload = 1_000_000;
        config.cors = Some(Cors::default());
        Ok(())
    }

    fn set(&mut self, rest: &mut Rest, name: &str, value: &str) -> Result<(), String> {
        let config = &mut self.config;
        let ms = || number(name, value).map(Duration::from_millis);
        match name {
            "port" => self.port = number(name, value)?,
            "ping-interval" => config.times.ping_interval = ms()?,
            "ping-timeout" => config.times.ping_timeout = ms()?,
            "connect-timeout" => config.times.connect_timeout = ms()?,
            "upgrade-timeout" => config.times.upgrade_timeout = ms()?,
            "close-timeout" => config.times.close_timeout = ms()?,
            "max-payload" | "max-buffer" => {
                config.input.max_payload = number(name, value)?;
                config.input.max_attachment_bytes = config.input.max_payload.saturating_mul(4);
            }
            "recovery" => {
                rest.recovery.window = ms()?;
                rest.recover = !rest.recovery.window.is_zero();
            }
            "skip-middlewares" => rest.recovery.skip_middleware = flag(name, value)?,
            "store" => self.store = store(value)?,
            "db" => self.store = StoreOption::Sqlite(value.to_owned()),
            "redis" => rest.redis = Some(value.to_owned()),
            "adapter" => rest.adapter = Some(value.to_owned()),
            "durability" => {
                rest.recovery.durability = choose(
                    name,
                    value,
                    &[("after", Durability::AfterCommit), ("before", Durability::BeforeCommit)],
                )?;
            }
            "sync" => self.full_sync = choose(name, value, &[("normal", false), ("full", true)])?,
            "log-entries" => rest.recovery.log_entries = number(name, value)?,
            "log-bytes" => rest.log_bytes = Some(number(name, value)?),
            "queue" => config.output.send_queue = number(name, value)?,
            "volatile-limit" => config.output.volatile_limit = number(name, value)?,
            "replay-page" => rest.recovery.replay_page = number(name, value)?,
            "replay-before-connect" => rest.recovery.replay_before_connect = number(name, value)?,
            "on-store-down" => {
                config.storage.on_emit =
                    choose(name, value, &[("refuse", EmitPolicy::Refuse), ("queue", EmitPolicy::Queue)])?;
            }
            "on-connect-store-down" => config.storage.on_connect = on_connect(name, value)?,
            "failed-event" => rest.recovery.failed_event = Some(value.to_owned()),
            "idle" => rest.idle = Some(ms()?).filter(|idle| !idle.is_zero()),
            "idle-warn" => rest.idle_warn = ms()?,
            "grace" => self.plan.grace = ms()?,
            "spread" => {
                let spread = ms()?;
                self.plan.pace = if spread.is_zero() { Pace::AtOnce } else { Pace::Spread(spread) };
            }
            "cors" => config.cors = cors(value),
            "transports" => transports(config, value)?,
            "log" => self.log = flag(name, value)?,
            "tls-cert" => self.tls_cert = Some(value.to_owned()),
            "tls-key" => self.tls_key = Some(value.to_owned()),
            "stream" => value.clone_into(&mut self.stream),
            #[cfg(feature = "admin")]
            "admin" => self.admin = Some(value.to_owned()),
            "protocol-suite" => {}
            _ => return Err(format!("--{name} is no option")),
        }
        Ok(())
    }

    fn finish(mut self, rest: Rest) -> Result<Self, String> {
        match (rest.adapter.as_deref(), rest.redis) {
            (Some("redis-streams") | None, Some(url)) => self.store = StoreOption::Redis(url),
            (Some("redis-streams"), None) => {
                return Err("--adapter=redis-streams needs --redis=URL".to_owned());
            }
            (Some(other), _) => return Err(format!("--adapter={other}: redis-streams")),
            (None, None) => {}
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err("--tls-cert and --tls-key go together".to_owned());
        }
        if self.stream.is_empty() {
            return Err("--stream is empty".to_owned());
        }
        let config = &mut self.config;
        let mut recovery = rest.recovery;
        recovery.log_bytes = rest.log_bytes.unwrap_or(match self.store {
            StoreOption::Memory => 64 << 20,
            StoreOption::Sqlite(_) | StoreOption::Redis(_) => recovery.log_bytes,
        });
        // A small queue makes what has to fit into it small, too.
        recovery.replay_page = recovery.replay_page.min(config.output.send_queue);
        config.output.volatile_limit = config.output.volatile_limit.min(config.output.send_queue);
        config.recovery = rest.recover.then_some(recovery);
        config.idle = rest.idle.map(|after| IdlePolicy {
            after,
            warn_before: rest.idle_warn.min(after),
            warn_event: "idle_warning".to_owned(),
        });
        config.check().map_err(|error| error.to_string())?;
        Ok(self)
    }
}

fn number<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("--{name}={value}: {error}"))
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    choose(
        name,
        value,
        &[("0", false), ("1", true), ("off", false), ("on", true), ("false", false), ("true", true)],
    )
}

fn choose<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(choice, _)| *choice == value);
    found.map(|(_, chosen)| *chosen).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        format!("--{name}={value}: {}", names.join(" or "))
    })
}

fn store(value: &str) -> Result<StoreOption, String> {
    match value.split_once(':') {
        None if value == "memory" => Ok(StoreOption::Memory),
        Some(("sqlite", file)) if !file.is_empty() => Ok(StoreOption::Sqlite(file.to_owned())),
        Some(("redis", url)) if !url.is_empty() => Ok(StoreOption::Redis(url.to_owned())),
        _ => Err(format!("--store={value}: memory, sqlite:FILE or redis:URL")),
    }
}

fn on_connect(name: &str, value: &str) -> Result<ConnectPolicy, String> {
    match value.split_once(':') {
        None if value == "fresh" => Ok(ConnectPolicy::FreshSession),
        None if value == "refuse" => Ok(ConnectPolicy::Refuse),
        Some(("wait", ms)) => Ok(ConnectPolicy::WaitUpTo(Duration::from_millis(number(name, ms)?))),
        _ => Err(format!("--{name}={value}: fresh, refuse or wait:MS")),
    }
}

fn cors(value: &str) -> Option<Cors> {
    let origin = match value {
        "none" | "" => return None,
        "*" => CorsOrigin::Any,
        list => CorsOrigin::List(list.split(',').map(|origin| origin.trim().to_owned()).collect()),
    };
    Some(Cors { origin, ..Cors::default() })
}

fn transports(config: &mut SocketIoConfig, value: &str) -> Result<(), String> {
    (config.polling, config.websocket) = (false, false);
    for transport in value.split(',') {
        match transport.trim() {
            "polling" => config.polling = true,
            "websocket" => config.websocket = true,
            other => return Err(format!("--transports: {other:?} is no transport")),
        }
    }
    Ok(())
}
