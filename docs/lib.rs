//! Compiles and runs the examples of the pages in this folder. It is a crate of its own, because a published crate holds
//! only what is in its folder.

#[cfg(doctest)]
#[doc = include_str!("from-diffusers.md")]
struct FromDiffusers;

#[cfg(doctest)]
#[doc = include_str!("other-libraries.md")]
struct OtherLibraries;
