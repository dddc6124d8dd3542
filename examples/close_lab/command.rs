//! The commands, as text messages give them.

use std::time::Duration;

use adjourn::{CloseCode, CloseFrame, close::CloseTiming, config::Abort};

/// What a text message asks for.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Close(CloseFrame, CloseTiming),
    Kick(CloseFrame, String),
    Terminate(Option<Abort>),
    Flood(Flood, Then),
    Pause,
    ResumeWhere(String),
    Ping(String),
    Late,
    CloseWhere(String, CloseFrame),
    TerminateWhere(String),
    Shutdown { grace: Duration, spread: Option<Duration> },
    Block(Duration),
    Stats,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    pub(crate) count: u64,
    pub(crate) size: usize,
}

/// What follows a flood in the same callback.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    Nothing,
    Close(CloseFrame),
    Kick(CloseFrame, String),
    Terminate(Option<Abort>),
}

impl Command {
    /// `None` if the text is no command; an error if it is an impossible one.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match name {
            "close" if rest.is_empty() => Ok(Self::Close(CloseFrame::EMPTY, CloseTiming::default())),
            "close" => frame(rest).map(|frame| Self::Close(frame, CloseTiming::default())),
            "close-in" => split(rest).and_then(|(ms, rest)| {
                let timing = CloseTiming { close_timeout: Some(duration(ms)?), ..CloseTiming::default() };
                Ok(Self::Close(frame(rest)?, timing))
            }),
            "kick" => kick(rest).map(|(frame, message)| Self::Kick(frame, message)),
            "terminate" => style(rest).map(Self::Terminate),
            "flood" => flood(rest).and_then(|(flood, rest)| match rest {
                "" => Ok(Self::Flood(flood, Then::Nothing)),
                more => Err(format!("unexpected {more:?}")),
            }),
            "flood-close" => {
                flood(rest).and_then(|(flood, rest)| Ok(Self::Flood(flood, Then::Close(frame(rest)?))))
            }
            "flood-kick" => flood(rest).and_then(|(flood, rest)| {
                let (frame, message) = kick(rest)?;
                Ok(Self::Flood(flood, Then::Kick(frame, message)))
            }),
            "flood-terminate" => {
                flood(rest).and_then(|(flood, rest)| Ok(Self::Flood(flood, Then::Terminate(style(rest)?))))
            }
            "pause" if rest.is_empty() => Ok(Self::Pause),
            "resume-where" => Ok(Self::ResumeWhere(rest.to_owned())),
            "ping" if rest.len() > 125 => {
                Err(format!("a Ping carries at most 125 bytes, not {}", rest.len()))
            }
            "ping" => Ok(Self::Ping(rest.to_owned())),
            "late" if rest.is_empty() => Ok(Self::Late),
            "close-where" => split(rest).and_then(|(prefix, rest)| {
                let prefix = prefix.to_owned();
                Ok(Self::CloseWhere(prefix, frame(rest)?))
            }),
            "terminate-where" => Ok(Self::TerminateWhere(rest.to_owned())),
            "shutdown" => {
                let (grace, spread) =
                    rest.split_once(' ').map_or((rest, None), |(grace, rest)| (grace, Some(rest)));
                duration(grace)
                    .and_then(|grace| Ok(Self::Shutdown { grace, spread: spread.map(duration).transpose()? }))
            }
            "block" => duration(rest).map(Self::Block),
            "stats" if rest.is_empty() => Ok(Self::Stats),
            _ => return None,
        })
    }
}

fn split(text: &str) -> Result<(&str, &str), String> {
    text.split_once(' ').ok_or_else(|| format!("something is missing behind {text:?}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| format!("{text:?} is not a number of milliseconds"))
}

/// `CODE [REASON...]`
fn frame(text: &str) -> Result<CloseFrame, String> {
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let code = code.parse().map_err(|_| format!("{code:?} is not a Close code"))?;
    CloseCode::new(code)
        .and_then(|code| CloseFrame::new(code, reason.to_owned()))
        .map_err(|error| error.to_string())
}

/// `CODE REASON|MESSAGE`
fn kick(text: &str) -> Result<(CloseFrame, String), String> {
    let (head, message) = text.split_once('|').ok_or("a kick wants CODE REASON|MESSAGE")?;
    Ok((frame(head)?, message.to_owned()))
}

fn style(text: &str) -> Result<Option<Abort>, String> {
    match text {
        "" => Ok(None),
        "reset" => Ok(Some(Abort::Reset)),
        "fin" => Ok(Some(Abort::Fin)),
        "auto" => Ok(Some(Abort::Auto)),
        other => Err(format!("{other:?} is not reset, fin or auto")),
    }
}

/// `N SIZE ...`
fn flood(text: &str) -> Result<(Flood, &str), String> {
    const MOST: u64 = 1 << 32;
    let (count, rest) = split(text)?;
    let (size, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let count: u64 = count.parse().map_err(|_| format!("{count:?} is not a number of messages"))?;
    let size: usize = size.parse().map_err(|_| format!("{size:?} is not a number of bytes"))?;
    if size < 8 {
        return Err("a message of a flood begins with its number, so it has at least 8 bytes".into());
    }
    if count.saturating_mul(size as u64) > MOST {
        return Err(format!("a flood of more than {MOST} bytes"));
    }
    Ok((Flood { count, size }, rest))
}
