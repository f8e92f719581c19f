//! The store as Python shares it: [`sharpwave_core::Shared`] with the errors of the binding.
//!
//! Its methods may block, so none is called with the GIL in hand.

use sharpwave_core::{Journal, Shared, Store, Writer as AnyWriter};

use crate::errors::Failure;

/// A store that may be shared, frozen and closed.
pub type Handle = Shared<Store, Journal, Failure>;

/// The one that writes.
pub type Writer<'a> = AnyWriter<'a, Store, Journal, Failure>;
