# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_opnix_global_optspecs
    string join \n h/help V/version
end

function __fish_opnix_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_opnix_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_opnix_using_subcommand
    set -l cmd (__fish_opnix_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c opnix -n "__fish_opnix_needs_command" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_needs_command" -s V -l version -d 'Print version'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "serve" -d 'Serve credentials to units: what opnix.service runs'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "check" -d 'Check the configuration, and unit files against it'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "explain" -d 'Say whether a unit would get a credential, and why; never its value'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "status" -d 'Show how the service is: provider, cache, budget of requests, each secret\'s age, and the files; never a value'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "refresh" -d 'Ask 1Password for the values of secrets now, instead of when they are next due'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "mirror" -d 'Write the files of the configuration, keep them current, act on units whose secret changed, and start those that missed theirs: what opnix-mirror.service runs'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "doctor" -d 'Look for what keeps units from their secrets, now or after the next boot; to be run as root'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "metrics" -d 'Show how opnix is, in numbers, in the text format of Prometheus; never a value of a secret'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "demo" -d 'See opnix at work, with made-up secrets: needs no account and no root'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "schema" -d 'Print the JSON Schema of secrets.json, for editors'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "core" -d 'Put 1Password\'s core library in place, which the provider `service_account` needs'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "setup" -d 'Make the key that the cache on disk is sealed with'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "purge" -d 'Take everything of opnix\'s secrets from this machine: from memory, from files, and from the disk'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "secret" -d 'Write the files of a configuration once, without a service, as OpNix does'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "token" -d 'The token of a service account or a Connect server: store it, try it, or bring it to the running service'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "env" -d 'Print variables with secrets in them for a shell, as OpNix does'
complete -c opnix -n "__fish_opnix_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l token-file -d 'The file with the provider\'s token; by default the credential `token`, then $OP_SERVICE_ACCOUNT_TOKEN' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l socket -d 'Listen on this path, when not started by systemd\'s socket unit' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l control -d 'Listen for `opnix status`, `explain` and `refresh` on this path, when not started by systemd\'s socket unit' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l reload -d 'Have the running service of this unit take the configuration, and wait until it has: what ExecReload= runs'
complete -c opnix -n "__fish_opnix_using_subcommand serve" -l trust-peer-names -d 'DEVELOPMENT ONLY: believe what a client says it is, without asking the kernel'
complete -c opnix -n "__fish_opnix_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand check" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand check" -l units -d 'A directory of unit files, such as /etc/systemd/system; can be given several times, the most important first' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand check" -l socket -d 'The socket that the unit files name' -r
complete -c opnix -n "__fish_opnix_using_subcommand check" -l quiet -d 'Say nothing when nothing is wrong'
complete -c opnix -n "__fish_opnix_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand explain" -l config -d 'A configuration file to look into, instead of asking the service; can be given several times' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand explain" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand status" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand status" -l json -d 'As JSON: the answer to io.opnix.Status or io.opnix.Unit, documented in io.opnix.varlink (share/doc/opnix/docs)'
complete -c opnix -n "__fish_opnix_using_subcommand status" -l watch -d 'Show it anew every two seconds, until Ctrl-C or nobody reads it; as JSON, one line each time'
complete -c opnix -n "__fish_opnix_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -l timeout -d 'How long to wait for 1Password; what comes later is kept all the same' -r
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -l dry-run -d 'Only say what would change: secrets, files and units'
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -l socket -d 'The socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -l control -d 'The control socket of the service, which tells of changes' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -l prepare -d 'Mount the memory for files (`mirror_root`) if the configuration has files there, and do nothing else; needs the right to mount'
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -l reload -d 'Have the running mirror of this unit look at everything, and wait until it has: what ExecReload= runs. Fails if a file that has to be there is not'
complete -c opnix -n "__fish_opnix_using_subcommand mirror" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l token-file -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l report -d 'Write a report that can be sent to who helps: versions, findings, states, and the shape of the configuration, with all names replaced, and no value and no token. To opnix-report.txt, or another file that is not there yet; read it before you send it' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l offline -d 'Ask neither 1Password nor the network'
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -l json -d 'As JSON: every finding with a name for programs'
complete -c opnix -n "__fish_opnix_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -l textfile -d 'Write them to this file, whole or not at all, and for everybody to read: for node_exporter\'s textfile collector' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -l doctor -d 'Add what `opnix doctor --offline` finds; to be run as root'
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -l report -d 'Answer io.systemd.Metrics on the connection that systemd passes: what opnix-report@.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand schema" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_using_subcommand core; and not __fish_seen_subcommand_from install help" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_using_subcommand core; and not __fish_seen_subcommand_from install help" -f -a "install" -d 'Install the library from a wheel of 1Password\'s Python SDK, after checking its SHA-256 sum'
complete -c opnix -n "__fish_opnix_using_subcommand core; and not __fish_seen_subcommand_from install help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand core; and __fish_seen_subcommand_from install" -l to -d 'Where to install it to' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand core; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand core; and __fish_seen_subcommand_from help" -f -a "install" -d 'Install the library from a wheel of 1Password\'s Python SDK, after checking its SHA-256 sum'
complete -c opnix -n "__fish_opnix_using_subcommand core; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand setup" -l with-key -d 'What systemd-creds seals a key with that is made, or resealed: auto, host, tpm2 or host+tpm2' -r -f -a "auto\t''
host\t''
tpm2\t''
host+tpm2\t''"
complete -c opnix -n "__fish_opnix_using_subcommand setup" -l store -d 'Where the sealed key goes' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand setup" -l state -d 'Where opnix.service has its cache' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand setup" -l reseal -d 'Seal the present key with --with-key; it is the same key afterwards, and its cache goes on to open'
complete -c opnix -n "__fish_opnix_using_subcommand setup" -l new-key -d 'Set the present key and its cache aside, and make a new key'
complete -c opnix -n "__fish_opnix_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand purge" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand purge" -l token -d 'Take the token as well'
complete -c opnix -n "__fish_opnix_using_subcommand purge" -l dry-run -d 'Say what would be done, and do nothing'
complete -c opnix -n "__fish_opnix_using_subcommand purge" -l stop -d 'Only stop opnix\'s units, so that nobody who waits is started with an empty secret: what `systemd/install --uninstall` runs'
complete -c opnix -n "__fish_opnix_using_subcommand purge" -l yes -d 'Do not ask; needed where there is no terminal to ask on'
complete -c opnix -n "__fish_opnix_using_subcommand purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand secret" -l config -d 'The configuration; can be given several times' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand secret" -l output -d 'Where relative paths start' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand secret" -l token-file -d 'The file with the token, by default the one that opnix.service loads; $OP_SERVICE_ACCOUNT_TOKEN stands above it' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand secret" -l library -d '1Password\'s core library, if neither the configuration nor `opnix core install` says where it is' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand secret" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "set" -d 'Ask for the token, without showing it, or read it from standard input, and store it, for its owner alone to read'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "check" -d 'Try the token that is in the file: sign in to 1Password with it, and list the vaults that it may read'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "show" -d 'Tell what is known of the token without asking 1Password; never the token'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "take" -d 'Have the running service take the token that is in the file now: what a reload of opnix.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "watch" -d 'Have the running service take each new token: what opnix-token.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand token; and not __fish_seen_subcommand_from set check show take watch help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from set" -l with-key -d 'What systemd-creds seals it with: auto, host, tpm2 or host+tpm2' -r -f -a "auto\t''
host\t''
tpm2\t''
host+tpm2\t''"
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from set" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from set" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from set" -l seal -d 'Seal it with systemd-creds, so that only this machine can open it; done anyway where opnix.service loads a sealed one'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from check" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from check" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from check" -l json -d 'Print JSON'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from show" -l config -d 'A configuration file, or a directory of them (*.json); can be given several times, and the files are joined' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from show" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from show" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from take" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from take" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from take" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from watch" -l control -d 'The control socket of the service' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from watch" -l path -d 'The token\'s file; by default the one that opnix.service loads' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from watch" -s h -l help -d 'Print help'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "set" -d 'Ask for the token, without showing it, or read it from standard input, and store it, for its owner alone to read'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "check" -d 'Try the token that is in the file: sign in to 1Password with it, and list the vaults that it may read'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "show" -d 'Tell what is known of the token without asking 1Password; never the token'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "take" -d 'Have the running service take the token that is in the file now: what a reload of opnix.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "watch" -d 'Have the running service take each new token: what opnix-token.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand env" -l config -d 'The configuration' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand env" -l config-json -d 'The configuration itself' -r
complete -c opnix -n "__fish_opnix_using_subcommand env" -l token-file -d 'The file with the token, by default the one that opnix.service loads; $OP_SERVICE_ACCOUNT_TOKEN stands above it' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand env" -l library -d '1Password\'s core library, if `opnix core install` did not put it in place' -r -F
complete -c opnix -n "__fish_opnix_using_subcommand env" -l host -d 'Hosts that the token may name besides 1Password\'s' -r
complete -c opnix -n "__fish_opnix_using_subcommand env" -l format -r -f -a "shell\t'`export NAME=\'value\'`'
dotenv\t'`NAME="value"`'
json\t'`{"NAME": "value"}`'"
complete -c opnix -n "__fish_opnix_using_subcommand env" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "serve" -d 'Serve credentials to units: what opnix.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "check" -d 'Check the configuration, and unit files against it'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "explain" -d 'Say whether a unit would get a credential, and why; never its value'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "status" -d 'Show how the service is: provider, cache, budget of requests, each secret\'s age, and the files; never a value'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "refresh" -d 'Ask 1Password for the values of secrets now, instead of when they are next due'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "mirror" -d 'Write the files of the configuration, keep them current, act on units whose secret changed, and start those that missed theirs: what opnix-mirror.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "doctor" -d 'Look for what keeps units from their secrets, now or after the next boot; to be run as root'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "metrics" -d 'Show how opnix is, in numbers, in the text format of Prometheus; never a value of a secret'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "demo" -d 'See opnix at work, with made-up secrets: needs no account and no root'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "schema" -d 'Print the JSON Schema of secrets.json, for editors'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "core" -d 'Put 1Password\'s core library in place, which the provider `service_account` needs'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "setup" -d 'Make the key that the cache on disk is sealed with'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "purge" -d 'Take everything of opnix\'s secrets from this machine: from memory, from files, and from the disk'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "secret" -d 'Write the files of a configuration once, without a service, as OpNix does'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "token" -d 'The token of a service account or a Connect server: store it, try it, or bring it to the running service'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "env" -d 'Print variables with secrets in them for a shell, as OpNix does'
complete -c opnix -n "__fish_opnix_using_subcommand help; and not __fish_seen_subcommand_from serve check explain status refresh mirror doctor metrics demo schema core setup purge secret token env help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from core" -f -a "install" -d 'Install the library from a wheel of 1Password\'s Python SDK, after checking its SHA-256 sum'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "set" -d 'Ask for the token, without showing it, or read it from standard input, and store it, for its owner alone to read'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "check" -d 'Try the token that is in the file: sign in to 1Password with it, and list the vaults that it may read'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "show" -d 'Tell what is known of the token without asking 1Password; never the token'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "take" -d 'Have the running service take the token that is in the file now: what a reload of opnix.service runs'
complete -c opnix -n "__fish_opnix_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "watch" -d 'Have the running service take each new token: what opnix-token.service runs'
# Names of units, credentials and secrets come from the configuration.
function __fish_opnix_arguments
    set -l skip
    for word in (commandline -opc)[3..-1]
        if set -q skip[1]
            set skip
            continue
        end
        switch $word
            case --config --control --timeout
                set skip yes
            case '-*'
            case '*'
                echo $word
        end
    end
end
complete -c opnix -n "__fish_opnix_using_subcommand explain; and test (count (__fish_opnix_arguments)) -eq 0" -f -a "(opnix __complete units 2>/dev/null)"
complete -c opnix -n "__fish_opnix_using_subcommand explain; and test (count (__fish_opnix_arguments)) -eq 1" -f -a "(opnix __complete credentials (__fish_opnix_arguments) 2>/dev/null)"
complete -c opnix -n "__fish_opnix_using_subcommand status; and test (count (__fish_opnix_arguments)) -eq 0" -f -a "(opnix __complete units 2>/dev/null)"
complete -c opnix -n "__fish_opnix_using_subcommand refresh" -f -a "(opnix __complete secrets 2>/dev/null)"
