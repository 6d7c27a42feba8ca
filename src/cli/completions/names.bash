
# Names of units, credentials and secrets come from the configuration.
_opnix_with_names() {
    _opnix "$@"
    local word kind="" skip="" unit="" count=0 name
    case "${COMP_WORDS[1]}" in
        explain | status | refresh) ;;
        *) return 0 ;;
    esac
    [[ "$2" != -* ]] || return 0
    for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        if [[ -n "${skip}" ]]; then
            skip=""
            continue
        fi
        case "${word}" in
            --config | --control | --timeout) skip=yes ;;
            -*) ;;
            *)
                count=$((count + 1))
                unit="${word}"
                ;;
        esac
    done
    [[ -z "${skip}" ]] || return 0
    case "${COMP_WORDS[1]},${count}" in
        explain,0 | status,0) kind=units ;;
        explain,1) kind=credentials ;;
        refresh,*) kind=secrets ;;
        *) return 0 ;;
    esac
    [[ "${kind}" == credentials ]] || unit=""
    COMPREPLY=()
    while IFS= read -r name; do
        [[ "${name}" != "$2"* ]] || COMPREPLY+=("$(printf '%q' "${name}")")
    done < <("$1" __complete "${kind}" ${unit:+"${unit}"} 2>/dev/null)
    return 0
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _opnix_with_names -o nosort -o bashdefault -o default opnix
else
    complete -F _opnix_with_names -o bashdefault -o default opnix
fi
