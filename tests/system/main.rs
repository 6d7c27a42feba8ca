//! opnix on a real systemd: see tests/run and docs/architecture.md.

mod activation;
mod asker;
mod bench;
mod birth;
mod boot;
mod cache;
mod command;
mod credentials;
mod crowd;
mod death;
mod harness;
mod lease;
mod lifetimes;
mod machine;
mod mirror;
#[path = "../nixos/evaluation.rs"]
mod nix;
mod nixos;
mod onepassword;
mod opnix;
mod refusals;
#[path = "../simulators/mod.rs"]
mod simulators;
mod store;
mod strace;
mod suite;
mod user_manager;
mod worker;

use suite::tests;

fn main() -> std::process::ExitCode {
    suite::run(tests![
        harness::a_lease_holds_up_a_reader,
        harness::a_test_sees_its_own_journal_records_only,
        harness::what_a_command_leaves_running_is_killed,
        harness::a_process_is_stopped_at_its_birth,
        credentials::five_secrets_reach_five_units_and_the_service_starts_on_first_use,
        credentials::a_template_is_served_as_one_credential,
        credentials::a_value_of_any_size_up_to_systemds_limit_arrives_whole,
        credentials::the_demo_runs_through_real_units,
        credentials::the_sandbox_is_tight_and_the_service_small,
        activation::a_socket_of_its_own_is_refused_under_socket_activation,
        activation::trust_in_names_alone_is_refused_as_well,
        activation::trust_in_names_is_refused_under_socket_activation,
        refusals::an_unmapped_credential_or_unit_is_refused,
        refusals::faults_of_the_vault_are_refused,
        refusals::an_oversized_value_is_refused_and_named,
        refusals::a_vault_that_does_not_answer_in_time_is_refused,
        refusals::a_forged_name_is_refused,
        refusals::a_client_that_does_not_read_holds_up_nobody,
        onepassword::the_secrets_of_a_host_come_through_the_official_core,
        onepassword::the_secrets_of_a_host_come_from_a_connect_server,
        onepassword::the_readmes_installation_ends_in_a_unit_with_its_secret,
        onepassword::fifty_units_at_once_cost_the_fewest_requests,
        onepassword::each_fault_at_a_units_start_refuses_it_and_says_why,
        onepassword::a_replaced_token_counts_after_a_restart_and_none_is_said_to_be_missing,
        onepassword::units_that_wait_for_1password_get_their_secret_when_it_is_back,
        onepassword::a_restart_in_the_middle_of_a_fetch_loses_no_unit,
        cache::without_a_key_values_are_in_memory_only_and_status_says_so,
        cache::a_cache_that_is_copied_to_another_machine_does_not_open,
        cache::administrators_and_nobody_else_ask_over_the_control_socket,
        cache::five_units_start_at_a_boot_without_network,
        cache::a_thousand_units_at_once_are_served_with_one_fetch_and_again_without_any,
        cache::a_power_cut_leaves_the_old_or_the_new_value,
        mirror::five_files_are_there_with_their_owners_before_what_comes_after_the_mirror,
        mirror::what_is_missing_fails_the_mirror_and_the_others_are_delivered,
        mirror::a_changed_secret_acts_on_the_units_that_use_it_once,
        mirror::a_reload_refreshes_credentials_where_systemd_can,
        mirror::readers_never_see_a_partial_file_however_often_it_is_rewritten_or_the_mirror_killed,
        mirror::values_reach_the_environment_as_they_are,
        nixos::the_example_host_boots_with_and_without_its_token_and_network,
        nixos::the_home_manager_module_serves_a_users_units_and_files,
        user_manager::a_users_units_get_their_secrets_and_nobody_else_does,
        lifetimes::units_that_wait_survive_a_kill,
        lifetimes::units_that_wait_survive_a_restart,
        lifetimes::units_that_begin_to_wait_during_a_restart_are_served_as_well,
        lifetimes::units_that_wait_survive_a_package_upgrade,
        lifetimes::a_service_that_hangs_is_replaced_and_units_that_wait_are_served,
        lifetimes::units_that_wait_are_refused_when_the_service_is_stopped,
        lifetimes::a_broken_configuration_keeps_the_old_one,
        lifetimes::a_service_that_starts_with_a_broken_configuration_refuses_and_says_so,
        store::what_finds_no_place_to_wait_is_refused_and_the_service_recovers,
        store::when_no_place_is_left_even_for_refusals_units_wait_in_the_backlog,
        store::a_full_store_survives_a_kill,
        store::an_answer_that_a_crash_cut_off_ends_as_a_refusal,
        store::what_others_left_in_the_store_is_dropped_and_what_went_away_is_refused,
        death::a_kill_at_any_system_call_leaves_no_wrong_answer,
        death::an_error_at_any_system_call_leaves_no_wrong_answer,
    ])
}
