//! Why a stage of a channel can not go on, and how far the harm reaches.

use std::fmt;

pub use crate::gpu::error::Harm;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    #[cfg(feature = "software")]
    Media(crate::av::Error),
    Device(crate::gpu::error::Error),
    /// A sentence.
    Other(String),
}

impl Error {
    pub fn harm(&self) -> Harm {
        match self {
            Error::Device(error) => error.harm(),
            _ => Harm::Request,
        }
    }
}

#[cfg(feature = "software")]
impl From<crate::av::Error> for Error {
    fn from(error: crate::av::Error) -> Error {
        Error::Media(error)
    }
}

impl From<crate::gpu::error::Error> for Error {
    fn from(error: crate::gpu::error::Error) -> Error {
        Error::Device(error)
    }
}

impl From<String> for Error {
    fn from(what: String) -> Error {
        Error::Other(what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "software")]
            Error::Media(error) => error.fmt(f),
            Error::Device(error) => error.fmt(f),
            Error::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
