# Names of units, credentials and secrets come from the configuration.
_opnix_names() {
    local -a names
    names=(${(f)"$(_call_program names opnix __complete "$@" 2>/dev/null)"})
    compadd -a names
}
_opnix_units() { _opnix_names units }
_opnix_secrets() { _opnix_names secrets }
_opnix_credentials() { _opnix_names credentials "${(q)line[1]}" }

