//! Two servers share the channels in a real Redis: what they promise to clients that use both, and
//! whether every reader's stream is right while Redis, its connections and a server fail under
//! load.
//!
//! `REDIS_ROUNDS=20 cargo test -p ccomet --test redis_servers` goes through all troubles that
//! often. `REDIS_SEED` makes other random choices, and `REDIS_PROGRAM` names another build of the
//! program.

#[path = "../common/mod.rs"]
mod common;
mod line;
mod outages;
mod pair;
mod promises;
mod publishers;
mod readers;
mod record;
mod torture;

use std::process::ExitCode;

use testing::programs::{Need, run};
use testing::tests;

use outages::{a_redis_that_is_away_refuses_publications_and_keeps_subscribers, an_empty_redis_gives_readers_a_gap};
use promises::{
    a_key_that_both_servers_race_is_used_once, a_message_with_a_time_to_live_ends_at_both_servers,
    a_reader_of_a_pattern_gets_what_the_other_server_publishes, a_reader_resumes_at_the_other_server,
    clearing_and_closing_reach_readers_of_the_other_server, pages_of_history_are_the_same_at_both_servers,
    prefixes_keep_deployments_apart, the_list_has_the_channels_of_both_servers,
};
use torture::streams_are_right_in_every_trouble;

fn main() -> ExitCode {
    run(tests![
        needs [Need::Program("redis-server")];
        pages_of_history_are_the_same_at_both_servers,
        a_reader_resumes_at_the_other_server,
        a_key_that_both_servers_race_is_used_once,
        a_message_with_a_time_to_live_ends_at_both_servers,
        clearing_and_closing_reach_readers_of_the_other_server,
        a_reader_of_a_pattern_gets_what_the_other_server_publishes,
        the_list_has_the_channels_of_both_servers,
        prefixes_keep_deployments_apart,
        a_redis_that_is_away_refuses_publications_and_keeps_subscribers,
        an_empty_redis_gives_readers_a_gap,
        streams_are_right_in_every_trouble
    ])
}
