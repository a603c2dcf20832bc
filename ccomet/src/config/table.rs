//! Settings as rows of a table. A row is the only place that has a setting's documentation, name,
//! type, default and range.

use std::ops::RangeInclusive;

use super::{ConfigError, form};

/// A table of the file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) rows: &'static [Row],
}

/// A setting, as text. Numbers have the digits and units of the source: `64 KiB`, `1_000`.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The type of the field.
    pub(crate) kind: &'static str,
    /// The default. Values other than numbers are written as in TOML; `none` is a missing setting.
    pub(crate) default: &'static str,
    /// The allowed range of a number.
    pub(crate) range: Option<&'static str>,
    /// The code of the error with which the setting refuses a request.
    pub(crate) answers: Option<&'static str>,
    /// When a change of the setting takes effect.
    pub(crate) applied: Applied,
    pub(crate) meaning: &'static str,
}

/// The event by which a change of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A reload.
    Reload,
    /// A reload if the new value is lower, and otherwise a restart.
    ReloadIfLower,
    /// A reload if the setting was there before and still is, and otherwise a restart.
    ReloadUnlessSwitched,
    /// A restart.
    Restart,
}

/// The names of the settings that differ between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Those that the reload applies.
    pub(crate) applied: Vec<&'static str>,
    /// Those that keep their values until the server is restarted.
    pub(crate) needing_restart: Vec<&'static str>,
}

impl Changes {
    /// Records that a setting differs. `is_kept` is set if it keeps its value.
    pub(crate) fn note(&mut self, name: &'static str, is_kept: bool) {
        if is_kept { self.needing_restart.push(name) } else { self.applied.push(name) }
    }
}

/// The interface that [`settings!`] implements for a table.
pub(crate) trait Settings {
    const SECTION: Section;

    /// Checks that each number is in its range.
    fn check_ranges(&self) -> Result<(), ConfigError>;

    /// Records the settings that differ from those of a running server. Those that a reload does
    /// not apply get the values of the running server.
    fn succeed(&mut self, running: &Self, changes: &mut Changes);
}

/// Checks that a number is in its range.
pub(crate) fn check(
    name: &'static str,
    value: impl TryInto<u64>,
    range: RangeInclusive<u64>,
) -> Result<(), ConfigError> {
    let value = value.try_into().unwrap_or(u64::MAX);
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    // The greatest number that the server can compute with is not a bound that operators need to
    // know.
    let is_named = max < u64::MAX / 1_000 || value > max;
    let of_rules = form::of_rules().rows.iter().map(|row| (form::of_rules(), row));
    let mut rows = form::all().chain(of_rules).filter(|(section, row)| form::full_name(section, row) == name);
    let in_words = rows.next().and_then(|(_, row)| row.range).filter(|range| !is_named || range.contains(" to "));
    let range = match in_words {
        Some(range) => range.replace('_', ","),
        None if is_named => format!("{min} to {max}"),
        None => format!("at least {min}"),
    };
    Err(ConfigError::Range { name, range, value })
}

/// Declares a table of settings: a struct, its `Default`, and its [`Settings`]. Each row is
///
/// ```text
/// /// Documentation.
/// name: Type = DEFAULT, [MIN..=MAX], answers = "error_code", applied_by = restart;
/// ```
///
/// A number may have a unit after it: `B`, `KiB`, `MiB`, `GiB`, `s` or `ms`. The range `[MIN..]`
/// has no greatest value, but seconds have to fit into 64 bits as milliseconds. A default other
/// than a number, `true`, `false`, `[]` or `none` stands there as in TOML, and after `=>` as in
/// Rust. Range and code are optional; a row has a range if it is a number. A reload applies a
/// setting, unless the row has `applied_by = restart`, or another word of the macro.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $(#[derive($derive:ident)])?
        pub struct $struct:ident in [$section:ident] {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                $name:ident: $type:ty = $default:tt $($unit:ident)? $(=> $value:expr)?
                    $(, [$($range:tt)*])? $(, answers = $code:literal)? $(, applied_by = $applied:ident)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, $($derive,)? PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(clippy::struct_excessive_bools)] // each is a setting of its own
        pub struct $struct {
            $(
                $(#[doc = $doc])*
                #[doc = ""]
                #[doc = concat!(
                    "Default: `", settings!(@text $default $($unit)?), "`"
                    $(, ", range: ", settings!(@range $($range)*))?, "."
                )]
                $(#[serde($($serde)*)])?
                pub $name: $type,
            )*
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($name: settings!(@value $default $($unit)? $(=> $value)?),)* }
            }
        }

        impl $crate::config::table::Settings for $struct {
            const SECTION: $crate::config::table::Section = $crate::config::table::Section {
                name: stringify!($section),
                meaning: concat!($($about),*).trim_ascii(),
                rows: &[$($crate::config::table::Row {
                    name: stringify!($name),
                    kind: stringify!($type),
                    default: settings!(@text $default $($unit)?),
                    range: settings!(@option $(settings!(@range $($range)*))?),
                    answers: settings!(@option $($code)?),
                    applied: settings!(@applied $($applied)?),
                    meaning: concat!($($doc),*).trim_ascii(),
                }),*],
            };

            fn check_ranges(&self) -> Result<(), $crate::config::ConfigError> {
                $($(
                    let name = concat!(stringify!($section), ".", stringify!($name));
                    $crate::config::table::check(name, self.$name, settings!(@bounds $($range)*))?;
                )?)*
                Ok(())
            }

            fn succeed(&mut self, running: &Self, changes: &mut $crate::config::table::Changes) {
                $(
                    if self.$name != running.$name {
                        let is_kept = settings!(@is_kept self.$name, running.$name $(, $applied)?);
                        changes.note(concat!(stringify!($section), ".", stringify!($name)), is_kept);
                        if is_kept {
                            self.$name.clone_from(&running.$name);
                        }
                    }
                )*
            }
        }
    };

    (@value $text:tt => $value:expr) => { $value };
    (@value []) => { Vec::new() };
    (@value none) => { None };
    (@value $number:literal KiB) => { $number << 10 };
    (@value $number:literal MiB) => { $number << 20 };
    (@value $number:literal GiB) => { $number << 30 };
    (@value $number:literal $($unit:ident)?) => { $number };

    (@text $default:tt $($unit:ident)?) => { concat!(stringify!($default) $(, " ", stringify!($unit))?) };

    (@bounds $min:literal s ..) => { $min..=u64::MAX / 1_000 };
    (@bounds $min:literal $($unit:ident)? ..) => { settings!(@value $min $($unit)?)..=u64::MAX };
    (@bounds $min:literal $($unit:ident)? ..= $max:literal $($max_unit:ident)?) => {
        settings!(@value $min $($unit)?)..=settings!(@value $max $($max_unit)?)
    };

    (@range $min:literal $($unit:ident)? ..) => { concat!("at least ", settings!(@text $min $($unit)?)) };
    (@range $min:literal $($unit:ident)? ..= $max:literal $($max_unit:ident)?) => {
        concat!(settings!(@text $min $($unit)?), " to ", settings!(@text $max $($max_unit)?))
    };

    (@applied) => { $crate::config::table::Applied::Reload };
    (@applied reload_if_lower) => { $crate::config::table::Applied::ReloadIfLower };
    (@applied reload_unless_switched) => { $crate::config::table::Applied::ReloadUnlessSwitched };
    (@applied restart) => { $crate::config::table::Applied::Restart };

    (@is_kept $new:expr, $running:expr) => { false };
    (@is_kept $new:expr, $running:expr, reload_if_lower) => { $new > $running };
    (@is_kept $new:expr, $running:expr, reload_unless_switched) => { $new.is_some() != $running.is_some() };
    (@is_kept $new:expr, $running:expr, restart) => { true };

    (@option) => { None };
    (@option $some:expr) => { Some($some) };
}

pub(crate) use settings;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_error_for_a_value_out_of_range_has_the_range() {
        for (setting, error) in [
            ("limits.channels_max = 0", "limits.channels_max = 0 is out of range: allowed is at least 1"),
            ("limits.head_bytes_max = 1023", "limits.head_bytes_max = 1023 is out of range: allowed is 1 KiB to 1 MiB"),
            ("limits.message_bytes_max = 0", "limits.message_bytes_max = 0 is out of range: allowed is 1 B to 8 MiB"),
            ("times.drain_s = 86401", "times.drain_s = 86401 is out of range: allowed is 1 to 86,400 s"),
            ("auth.leeway_s = 3601", "auth.leeway_s = 3601 is out of range: allowed is 0 to 3,600 s"),
            ("hooks.timeout_ms = 0", "hooks.timeout_ms = 0 is out of range: allowed is 1 to 60,000 ms"),
            ("times.channel_idle_s = 0", "times.channel_idle_s = 0 is out of range: allowed is at least 1 s"),
            (
                "times.poll_wait_s = 61",
                "times.poll_wait_s = 61 is out of range: allowed is at most times.poll_wait_max_s (60 s); raise that too",
            ),
        ] {
            let config: Config = toml::from_str(setting).expect("TOML");
            assert_eq!(config.check().expect_err(setting).to_string(), error);
        }
        for setting in ["auth.leeway_s = 0", "times.poll_wait_s = 0", "limits.head_bytes_max = 1024"] {
            let config: Config = toml::from_str(setting).expect("TOML");
            config.check().expect(setting);
        }
        assert!(check("history.age_max_s", u64::MAX / 1_000 + 1, settings!(@bounds 1 s..)).is_err());
    }
}
