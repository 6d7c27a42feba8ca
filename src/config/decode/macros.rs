//! The macros that define the types of the configuration file.

/// Defines an object of the configuration file: its type, its reader and its JSON Schema. After `..` stands an object
/// whose keys are among the keys of this one; other objects can have the same keys.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $key:literal => $field:ident: $type:ty,)*
        $(
            ..$group:ident: $common:ident,
            $($(#[$last_doc:meta])* $last_key:literal => $last:ident: $last_type:ty,)*
        )?
    }) => {
        #[derive(Debug, Clone, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(deny_unknown_fields, transform = Self::require)]
        // Some keys are accepted for compatibility only.
        #[allow(dead_code)]
        pub struct $name {
            $($(#[$doc])* #[schemars(rename = $key)] pub $field: $type,)*
            $(
                #[schemars(flatten)]
                pub $group: $common,
                $($(#[$last_doc])* #[schemars(rename = $last_key)] pub $last: $last_type,)*
            )?
        }

        impl $name {
            /// The keys, and whether each must be there.
            fn keys() -> Vec<(&'static str, bool)> {
                let keys = [$(($key, <$type>::absent().is_none())),*].into_iter();
                $(
                    let keys = keys.chain($common::keys());
                    let keys = keys.chain([$(($last_key, <$last_type>::absent().is_none())),*]);
                )?
                keys.collect()
            }

            /// The schema requires the keys that the reader requires; by itself it would require every list and map.
            fn require(schema: &mut schemars::Schema) {
                let required = Self::keys().into_iter().filter(|(_, required)| *required);
                let required: Vec<&str> = required.map(|(key, _)| key).collect();
                schema.remove("required");
                if !required.is_empty() {
                    schema.insert("required".into(), required.into());
                }
            }

            fn from_members(
                members: &$crate::config::decode::reader::Members<'_>,
                reader: &mut $crate::config::decode::reader::Reader<'_>,
            ) -> Option<Self> {
                $(let $field = members.field::<$type>($key, reader);)*
                $(
                    let $group = $common::from_members(members, reader);
                    $(let $last = members.field::<$last_type>($last_key, reader);)*
                )?
                Some(Self { $($field: $field?,)* $($group: $group?, $($last: $last?,)*)? })
            }
        }

        impl $crate::config::decode::reader::Decode for $name {
            const EXPECTED: &'static str = "an object";

            fn decode(
                value: &jsonc_parser::ast::Value<'_>,
                reader: &mut $crate::config::decode::reader::Reader<'_>,
            ) -> Option<Self> {
                let keys: Vec<&str> = Self::keys().into_iter().map(|(key, _)| key).collect();
                let members = reader.object::<Self>(value, &keys)?;
                Self::from_members(&members, reader)
            }
        }
    };
}

/// Defines a choice between words: its type, its reader and its JSON Schema.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:literal => $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema)]
        pub enum $name { $($(#[$doc])* #[schemars(rename = $word)] $variant,)* }

        impl $crate::config::decode::reader::Decode for $name {
            const EXPECTED: &'static str = concat!("one of", $(" \"", $word, "\""),*);

            fn decode(
                value: &jsonc_parser::ast::Value<'_>,
                reader: &mut $crate::config::decode::reader::Reader<'_>,
            ) -> Option<Self> {
                match value {
                    jsonc_parser::ast::Value::StringLit(string) => match &*string.value {
                        $($word => Some(Self::$variant),)*
                        other => {
                            let problem = $crate::remedy::Problem::new(
                                format!("unknown word {other:?}"),
                                format!("it is {}", Self::EXPECTED),
                            );
                            reader.fault(value, &problem);
                            None
                        }
                    },
                    _ => reader.expected::<Self>(value),
                }
            }
        }
    };
}

pub(in crate::config) use {choice, object};
