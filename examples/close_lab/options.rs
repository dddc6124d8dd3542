//! The command line.

use std::{net::ToSocketAddrs as _, time::Duration};

use adjourn::{
    Config, ShutdownPlan,
    config::{Abort, AddressRangeError, ClosingData, ControlRate, Deflate, OnPeerClose, ProxyProtocol},
    http::Origins,
    shutdown::{ListenerInShutdown, Pace},
};

/// What a path is preceded by.
pub(crate) const UNIX: &str = "unix:";

pub(crate) struct Options {
    /// An address, or `unix:` and a path.
    pub(crate) listen: String,
    pub(crate) config: Config,
    pub(crate) plan: ShutdownPlan,
    pub(crate) workers: u8,
    pub(crate) log_messages: bool,
}

/// Reads `--name value` and the bare switches.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut config = Config::default();
    // Commands name connections by the beginnings of their paths, however long those are.
    config.handshake.max_path_kept = config.handshake.max_head;
    let mut options = Options {
        listen: String::new(),
        config,
        plan: ShutdownPlan::default(),
        workers: 1,
        log_messages: false,
    };
    let (mut paced, mut origins) = (None, Vec::new());
    while let Some(name) = args.next() {
        match name.as_str() {
            "--deflate" => options.config.deflate = Some(Deflate::default()),
            "--log-messages" => options.log_messages = true,
            "--tls" => {
                let files = args.next().zip(args.next()).ok_or("--tls wants two files, CERT and KEY")?;
                set_tls(&mut options.config, &files)?;
            }
            "--plain-http-in-shutdown" => {
                options.plan.listener_in_shutdown = ListenerInShutdown::PlainHttp;
            }
            "--origin" => origins.push(args.next().ok_or("--origin wants a value")?),
            _ => {
                let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
                if let Some(pace) =
                    set(&mut options, &name, &value).map_err(|error| format!("{name}: {error}"))?
                {
                    if paced.is_some() {
                        return Err("--spread and --rate exclude each other".into());
                    }
                    paced = Some(pace);
                }
            }
        }
    }
    if options.listen.is_empty() {
        return Err("--listen ADDRESS is missing".into());
    }
    if !options.listen.starts_with(UNIX)
        && let Err(error) = options.listen.to_socket_addrs()
    {
        return Err(format!("--listen: {:?}: {error}", options.listen));
    }
    if !origins.is_empty() {
        options.config.handshake.origins =
            Some(Origins::new(origins).map_err(|error| format!("--origin: {error}"))?);
    }
    options.config.validate().map_err(|error| error.to_string())?;
    options.plan.pace = paced.unwrap_or(Pace::AtOnce);
    Ok(options)
}

#[cfg(feature = "tls")]
fn set_tls(config: &mut Config, (chain, key): &(String, String)) -> Result<(), String> {
    use adjourn::tls::{Identity, ServerTls};

    let identity = Identity::from_files(chain, key).map_err(|error| format!("--tls: {error}"))?;
    config.listener.tls = Some(ServerTls::new(identity));
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn set_tls(_: &mut Config, _: &(String, String)) -> Result<(), String> {
    Err("--tls: built without the feature `tls`".into())
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<Option<Pace>, String> {
    let config = &mut options.config;
    match name {
        "--listen" => value.clone_into(&mut options.listen),
        "--close-timeout" => config.connection.close_timeout = duration(value)?,
        "--flush-budget" => config.connection.flush_budget = Some(duration(value)?),
        "--handshake-timeout" => config.handshake.handshake_timeout = duration(value)?,
        "--linger-timeout" => config.connection.linger_timeout = duration(value)?,
        "--linger-bytes" => config.connection.linger_bytes = number(value)?,
        "--heartbeat-interval" => config.connection.heartbeat.interval = optional(value)?,
        "--heartbeat-timeout" => config.connection.heartbeat.timeout = duration(value)?,
        "--stall-timeout" => config.connection.stall_timeout = optional(value)?,
        "--pause-timeout" => config.connection.pause_timeout = optional(value)?,
        "--max-payload" => config.connection.max_payload = number(value)?,
        "--max-backlog" => config.connection.max_backlog = number(value)?,
        "--max-fragments" => config.connection.max_fragments = number(value)?,
        "--max-connections" => config.event_loop.max_connections = number(value)?,
        "--max-per-address" => config.event_loop.max_connections_per_address = Some(number(value)?),
        "--max-handshakes" => config.event_loop.max_handshakes = Some(number(value)?),
        "--proxy-protocol" => config.listener.proxy_protocol = Some(proxy_protocol(value)?),
        "--control-rate" => config.connection.control_rate = rate(value)?,
        "--abort" => {
            config.connection.abort = match value {
                "reset" => Abort::Reset,
                "fin" => Abort::Fin,
                "auto" => Abort::Auto,
                _ => return Err("wants reset, fin or auto".into()),
            }
        }
        "--on-peer-close" => {
            config.connection.on_peer_close = match value {
                "flush" => OnPeerClose::FlushQueued,
                "drop" => OnPeerClose::DropQueued,
                _ => return Err("wants flush or drop".into()),
            }
        }
        "--closing-data" => {
            config.connection.closing_data = match value {
                "deliver" => ClosingData::Deliver,
                "discard" => ClosingData::Discard,
                _ => return Err("wants deliver or discard".into()),
            }
        }
        "--lame-duck" => options.plan.lame_duck = duration(value)?,
        "--grace" => options.plan.grace = duration(value)?,
        "--spread" => return duration(value).map(|over| Some(Pace::Spread(over))),
        "--rate" => {
            let rate: f64 = number(value)?;
            return if rate > 0.0 && rate.is_finite() {
                Ok(Some(Pace::Rate(rate)))
            } else {
                Err("wants more than 0".into())
            };
        }
        "--workers" => {
            options.workers = number(value)?;
            if options.workers == 0 {
                return Err("wants at least 1".into());
            }
        }
        _ => return Err("no such option".into()),
    }
    Ok(None)
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is not a number that fits"))
}

fn duration(value: &str) -> Result<Duration, String> {
    value.parse().map(Duration::from_millis).map_err(|_| format!("{value:?} is not a number of milliseconds"))
}

/// `RANGE`, `unix`, or several with commas between them: who has to begin with a PROXY header.
fn proxy_protocol(value: &str) -> Result<ProxyProtocol, String> {
    let (unix, ranges): (Vec<_>, Vec<_>) = value.split(',').partition(|word| *word == "unix");
    let ranges = ranges.into_iter().map(str::parse).collect::<Result<_, AddressRangeError>>();
    let mut settings = ProxyProtocol::required_from(ranges.map_err(|error| error.to_string())?);
    settings.trust_unix = !unix.is_empty();
    Ok(settings)
}

/// `PER_SECOND`, `PER_SECOND:BURST` or `off`.
fn rate(value: &str) -> Result<Option<ControlRate>, String> {
    if value == "off" {
        return Ok(None);
    }
    let (per_second, burst) = value.split_once(':').unzip();
    let burst = burst.map_or(Ok(ControlRate::default().burst), number)?;
    Ok(Some(ControlRate { per_second: number(per_second.unwrap_or(value))?, burst }))
}

fn optional(value: &str) -> Result<Option<Duration>, String> {
    if value == "off" { Ok(None) } else { duration(value).map(Some) }
}
