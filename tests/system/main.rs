//! opnix on a real systemd: see tests/run and docs/architecture.md.

mod activation;
mod asker;
mod bench;
mod birth;
mod boot;
mod cache;
mod chaos;
mod command;
mod configuration;
mod credentials;
mod crowd;
#[path = "../daemon/mod.rs"]
mod daemon;
mod deadline;
mod death;
mod faults;
mod files;
mod harness;
mod installed;
mod journal;
mod lease;
mod lifetimes;
mod machine;
mod machines;
mod metrics;
mod mirror;
mod mount;
#[path = "../nixos/evaluation.rs"]
mod nix;
mod nixos;
mod onepassword;
mod operator;
mod opnix;
mod owners;
mod peers;
mod purge;
mod recovery;
mod refusals;
mod roundtrip;
#[path = "../simulators/mod.rs"]
mod simulators;
mod status;
mod store;
mod stores;
mod strace;
mod suite;
mod switch;
mod token;
mod told;
mod unit_files;
mod user_manager;
mod versions;
mod worker;
mod writing;

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
        credentials::whose_a_credential_is_and_who_sees_it_is_as_the_documentation_says,
        credentials::the_demo_runs_through_real_units,
        credentials::the_sandbox_is_tight_and_the_service_small,
        activation::a_socket_of_its_own_is_refused_under_socket_activation,
        activation::trust_in_names_alone_is_refused_as_well,
        activation::trust_in_names_is_refused_under_socket_activation,
        activation::a_socket_that_an_older_release_opened_is_served_by_this_one,
        refusals::an_unmapped_credential_or_unit_is_refused,
        refusals::faults_of_the_vault_are_refused,
        refusals::an_oversized_value_is_refused_and_named,
        refusals::a_vault_that_does_not_answer_in_time_is_refused,
        refusals::a_forged_name_is_refused,
        refusals::a_client_that_does_not_read_holds_up_nobody,
        onepassword::the_secrets_of_a_host_come_through_the_official_core,
        onepassword::the_secrets_of_a_host_come_from_a_connect_server,
        onepassword::the_readmes_installation_ends_in_a_unit_with_its_secret,
        installed::what_is_installed_anywhere_works_as_it_says_and_is_removed_to_the_last_file,
        onepassword::fifty_units_at_once_cost_the_fewest_requests,
        onepassword::each_fault_at_a_units_start_refuses_it_and_says_why,
        token::a_new_token_is_taken_by_itself_however_it_is_written,
        token::a_reload_takes_the_new_token_or_fails_and_says_why,
        onepassword::units_that_wait_for_1password_get_their_secret_when_it_is_back,
        onepassword::a_restart_in_the_middle_of_a_fetch_loses_no_unit,
        cache::without_a_key_values_are_in_memory_only_and_status_says_so,
        cache::a_cache_that_is_copied_to_another_machine_does_not_open,
        cache::the_service_is_told_which_boot_it_is_in,
        cache::administrators_and_nobody_else_ask_over_the_control_socket,
        cache::five_units_start_at_a_boot_without_network,
        cache::a_thousand_units_at_once_are_served_with_one_fetch_and_again_without_any,
        cache::a_power_cut_leaves_the_old_or_the_new_value,
        machines::a_key_that_does_not_open_fails_only_the_unit_that_opens_it,
        machines::in_a_container_that_may_make_no_user_namespace_units_get_their_secrets,
        machines::with_the_legacy_cgroup_hierarchy_each_refusal_and_the_administrator_are_told_so,
        mount::an_owner_reads_his_file_and_cannot_fill_the_memory_of_all,
        mount::the_mount_of_an_older_opnix_is_taken_over_and_no_file_is_missing_for_a_moment,
        files::a_file_that_others_changed_is_put_back_and_its_service_told_once,
        files::what_left_the_configuration_is_removed_if_it_is_still_ours_even_after_a_reboot,
        files::a_directory_that_answers_nobody_keeps_no_other_file_waiting,
        files::nothing_is_mounted_over_what_another_tool_keeps_and_both_live_side_by_side,
        files::what_cannot_be_written_is_named_and_holds_up_nobody_least_of_all_where_it_is_optional,
        files::a_file_that_cannot_be_written_has_nobody_restarted_on_its_old_value,
        files::the_mirror_reads_no_token_and_no_cache,
        files::a_link_that_cannot_be_made_keeps_no_change_from_those_who_read_the_file,
        files::a_change_is_told_although_the_mirror_is_killed_in_the_middle,
        files::paths_that_lead_elsewhere_are_told_and_nothing_is_left_of_what_they_were,
        files::what_was_written_before_a_kill_is_removed_when_it_leaves,
        files::each_file_is_written_when_its_value_is_there_and_changes_without_end_do_not_put_it_off,
        files::a_one_time_password_is_written_anew_and_nobody_is_told,
        files::a_unit_that_is_starting_when_its_secret_changes_is_told_when_it_can_hear,
        unit_files::what_systemd_has_in_memory_counts_whatever_its_files_say_by_now,
        unit_files::check_says_nothing_of_the_units_of_a_distribution,
        unit_files::doctor_names_what_takes_the_credentials_of_all_services_back,
        unit_files::what_check_says_of_units_made_at_random_is_what_systemd_does,
        owners::a_directory_of_somebody_else_that_an_owner_puts_in_the_way_is_left_alone,
        owners::a_directory_that_is_swapped_while_it_is_made_changes_nobodys_mode,
        owners::links_directories_and_unfinished_files_that_are_swapped_lead_to_nothing_of_others,
        owners::a_directory_that_somebody_else_made_where_many_may_gets_no_secret,
        owners::an_access_list_of_the_directory_lets_nobody_read_what_is_made_in_it,
        owners::what_a_killed_mirror_left_unfinished_is_removed_and_what_stands_in_the_way_is_one_owners_trouble,
        owners::a_template_file_of_somebody_else_is_not_read,
        owners::root_writes_past_no_link_of_somebody_else,
        stores::what_an_older_store_writes_late_never_comes_back,
        stores::a_provider_that_answers_after_it_was_replaced_leaves_the_cache_alone,
        stores::an_old_cache_that_is_put_back_is_confirmed_before_it_is_served_as_fresh,
        stores::a_disk_that_is_full_or_read_only_keeps_the_old_file_and_holds_up_no_start,
        mirror::reloads_and_silent_connections_without_end_keep_no_secret_from_its_file,
        mirror::five_files_are_there_with_their_owners_before_what_comes_after_the_mirror,
        mirror::what_is_missing_is_told_and_the_others_are_delivered,
        mirror::a_changed_secret_acts_on_the_units_that_use_it_once,
        mirror::whoever_is_to_be_reloaded_has_the_new_value_of_its_credential,
        mirror::what_a_service_is_told_fails_on_record,
        mirror::readers_never_see_a_partial_file_however_often_it_is_rewritten_or_the_mirror_killed,
        versions::a_field_at_hand_that_is_newer_than_what_the_start_was_given_is_refused,
        versions::the_fields_of_an_item_are_of_one_version_in_each_start_and_text,
        roundtrip::a_value_arrives_byte_for_byte_by_whichever_way_it_goes,
        purge::nothing_is_written_beside_the_memory_whoever_unmounted_it,
        purge::a_purge_ends_although_the_service_hangs_or_it_was_killed_in_the_middle,
        purge::a_purge_names_copies_older_unit_files_and_who_was_given_a_file,
        purge::a_purge_starts_nobody_who_waits_for_a_service_that_does_not_run,
        purge::a_purge_takes_everything_says_who_still_holds_something_and_keeps_opnix_closed,
        recovery::what_waits_survives_an_upgrade_of_the_service_of_the_mirror_and_of_both,
        recovery::units_that_lacked_a_file_come_up_when_it_is_there_and_no_others_do,
        recovery::units_that_were_refused_come_up_when_their_value_is_there_and_no_others_do,
        status::a_refusal_counts_until_the_unit_has_its_secret_or_is_gone,
        status::the_files_are_told_as_they_are_and_why_not_as_they_are_to_be,
        recovery::what_stands_in_the_way_of_a_file_is_tried_again_until_it_is_gone,
        recovery::the_mirror_is_back_whatever_becomes_of_it_and_a_reload_returns_when_the_files_are_there,
        recovery::a_unit_that_failed_over_its_old_value_starts_with_the_new_one,
        nixos::the_example_host_boots_with_and_without_its_token_and_network,
        nixos::a_host_that_boots_while_1password_is_down_comes_up_by_itself,
        nixos::the_home_manager_module_serves_a_users_units_and_files,
        switch::what_ran_before_a_switch_runs_after_it_with_the_right_secret,
        token::the_token_is_stored_where_the_service_reads_it,
        token::a_token_is_sealed_and_rotated_without_being_in_plain_anywhere,
        told::a_unit_that_is_refused_or_waits_says_why_in_its_own_status,
        told::a_unit_whose_file_is_not_there_says_why_in_its_own_status,
        told::a_unit_that_waits_for_an_opnix_that_does_not_start_says_so_in_its_own_status,
        told::long_work_shows_how_far_it_is_in_the_status_of_opnixs_units,
        user_manager::a_users_units_get_their_secrets_and_nobody_else_does,
        user_manager::a_users_unit_that_waits_is_never_started_without_its_secret,
        user_manager::what_the_documentation_says_to_users_works,
        user_manager::a_users_files_and_units_are_kept_current_and_come_up_whenever_1password_does,
        journal::units_start_at_once_and_whole_while_the_journal_hangs,
        journal::the_service_is_restarted_while_the_journal_hangs,
        journal::records_that_a_kill_left_in_the_queue_are_told_by_the_next_instance,
        journal::what_finds_no_room_in_the_queue_is_counted_and_grants_go_first,
        journal::the_journals_rate_limit_takes_no_record,
        journal::a_grant_is_on_record_when_the_value_was_delivered_and_a_wait_when_it_begins,
        lifetimes::units_that_wait_survive_a_kill,
        lifetimes::units_that_wait_survive_a_restart,
        lifetimes::units_that_begin_to_wait_during_a_restart_are_served_as_well,
        lifetimes::units_that_wait_survive_a_package_upgrade,
        lifetimes::units_that_wait_survive_the_upgrade_from_the_release_before,
        lifetimes::units_that_wait_survive_a_kill_of_the_release_before_after_the_upgrade,
        lifetimes::a_service_that_hangs_is_replaced_and_units_that_wait_are_served,
        deadline::a_unit_with_its_own_deadline_waits_through_restarts_until_its_value_is_there,
        deadline::a_restart_does_not_prolong_a_deadline,
        lifetimes::units_that_wait_are_refused_when_the_service_is_stopped,
        lifetimes::who_asks_in_the_moment_of_a_stop_does_not_start_the_service_again,
        lifetimes::units_that_wait_are_refused_when_the_worker_dies_or_hangs_while_it_is_stopped,
        lifetimes::the_signal_to_stop_is_not_lost_among_others,
        configuration::a_unit_that_only_the_new_files_allow_starts_before_any_reload,
        configuration::a_faulty_configuration_is_named_and_a_mended_one_is_taken,
        configuration::a_configuration_that_others_could_have_written_is_not_taken,
        configuration::a_service_that_comes_up_with_a_faulty_configuration_takes_the_mended_one,
        lifetimes::a_broken_configuration_keeps_the_old_one,
        lifetimes::a_reload_that_ends_well_has_the_new_configuration_in_force,
        lifetimes::a_service_that_starts_with_a_broken_configuration_refuses_and_says_so,
        peers::a_crowd_with_forged_names_that_does_not_read_holds_up_no_start,
        peers::a_crowd_from_other_addresses_that_does_not_read_holds_up_no_start,
        peers::a_forger_that_does_not_read_is_closed_on_record_and_a_users_unit_never,
        peers::who_asks_from_another_address_is_held_through_kills_and_restarts,
        peers::systemd_nspawn_gets_nothing_for_a_credential,
        peers::of_one_unit_only_so_many_are_held_and_others_find_their_place,
        peers::another_user_is_refused_or_closed,
        peers::a_unit_is_recognized_by_the_number_or_the_path_of_its_cgroup,
        peers::forged_requests_in_a_loop_are_a_few_records_and_a_count,
        peers::every_socket_of_a_socket_unit_is_served,
        peers::every_control_socket_is_served,
        peers::a_listener_of_another_name_is_reported_and_left_open,
        peers::the_control_socket_refuses_who_asks_for_a_credential,
        peers::signals_while_requests_wait_make_no_empty_answer,
        store::one_unit_takes_no_more_than_its_places_and_others_find_theirs,
        store::a_unit_is_refused_although_all_places_for_refusals_are_taken,
        store::the_mirror_has_more_places_than_a_unit,
        store::what_finds_no_place_to_wait_is_refused_and_the_service_recovers,
        store::a_full_store_survives_a_kill,
        store::an_answer_that_a_crash_cut_off_ends_as_a_refusal,
        store::what_others_left_in_the_store_is_dropped_and_what_went_away_is_on_record,
        faults::a_refusal_that_a_crash_cut_off_stays_one_although_the_value_is_there_by_then,
        faults::a_process_of_another_user_is_refused_even_in_the_units_own_cgroup,
        faults::a_peer_that_is_gone_is_refused_although_its_pid_now_means_a_process_of_the_unit,
        faults::the_control_socket_answers_no_other_user_even_where_its_mode_lets_everybody_in,
        faults::as_installed_no_other_user_connects_to_either_socket,
        faults::nobody_but_root_looks_into_the_service_or_into_what_asks_1password,
        faults::each_value_that_is_served_is_on_record_once_with_who_got_what,
        faults::a_request_from_the_store_has_its_whole_answer_although_systemd_itself_is_held_up,
        faults::a_request_whose_value_is_at_hand_when_the_next_instance_finds_it_is_ended_as_any_other,
        faults::only_the_services_main_process_speaks_to_systemd_for_it,
        faults::a_request_that_nobody_waits_for_any_more_gives_up_its_place_at_once_on_record,
        faults::whichever_thread_hangs_a_unit_has_its_secret_soon,
        writing::a_mirror_killed_at_each_system_call_of_a_write_leaves_the_old_or_the_new_file,
        writing::a_kill_at_each_system_call_of_a_write_leaves_the_old_or_the_new_cache,
        writing::readers_of_the_cache_always_see_a_whole_one,
        writing::a_write_reaches_the_disk_before_its_name_does,
        writing::an_image_of_the_disk_at_any_moment_has_the_old_or_the_new_cache,
        metrics::a_timer_writes_the_metrics_for_all_to_read_and_says_when_the_service_is_stopped,
        metrics::systemd_report_lists_the_metrics_where_systemd_has_it,
        operator::a_host_that_is_well_has_no_finding,
        operator::each_fault_of_the_machine_is_named_mended_and_gone,
        operator::each_fault_of_the_token_and_of_1password_is_named_mended_and_gone,
        operator::each_fault_of_the_way_to_1password_is_named_mended_and_gone,
        chaos::the_judge_tells_each_wrong_answer_from_a_right_one,
        chaos::each_start_ends_with_the_whole_right_secret_or_fails_whatever_happens,
        chaos::a_kill_of_the_keeper_leaves_no_wrong_answer,
        chaos::a_kill_of_keeper_and_worker_empties_no_more_answers_than_was_measured,
        death::a_kill_at_any_system_call_leaves_no_wrong_answer,
        death::an_error_at_any_system_call_leaves_no_wrong_answer,
    ])
}
