//! Fault points: places where the code can be made wrong on purpose, to check whether a test
//! notices.
//!
//! `fault!("name")` is `false`, and its branch is not compiled into a program. In a build with
//! `--cfg fault_points`, it is true if the environment variable `FAULT_POINT` contains that name.
//! `cargo faults` makes such a build and runs the tests once for each name.

/// Returns whether the fault of this name is planted; always false except in a build with `--cfg
/// fault_points`.
#[doc(hidden)]
#[macro_export]
macro_rules! fault {
    ($name:literal) => {{
        #[cfg(fault_points)]
        let is_planted = {
            static POINT: $crate::fault::Point = $crate::fault::Point::new($name);
            POINT.is_planted()
        };
        #[cfg(not(fault_points))]
        let is_planted = false;
        is_planted
    }};
}

#[cfg(fault_points)]
use std::sync::OnceLock;

/// A fault point. Whether it is planted is looked up once.
#[cfg(fault_points)]
#[derive(Debug)]
pub struct Point {
    name: &'static str,
    is_planted: OnceLock<bool>,
}

#[cfg(fault_points)]
#[allow(missing_docs)]
impl Point {
    pub const fn new(name: &'static str) -> Self {
        Self { name, is_planted: OnceLock::new() }
    }

    pub fn is_planted(&self) -> bool {
        *self.is_planted.get_or_init(|| std::env::var_os("FAULT_POINT").is_some_and(|planted| planted == self.name))
    }
}

/// Returns the text of a file, with `FAULT_OLD` replaced by `FAULT_NEW` if `FAULT_FILE` is its path
/// in the workspace.
#[cfg(fault_points)]
pub fn text(path: &str, text: &'static str) -> &'static str {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("FAULT_FILE") != path {
        return text;
    }
    text.replace(&variable("FAULT_OLD"), &variable("FAULT_NEW")).leak()
}
