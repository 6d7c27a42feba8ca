
# What readline splits at `@`, `:` and `=` is one word for the shell, and for opnix. From the line as it is typed, up to the
# cursor: words[0], words[1] and so on, without quotes, cword, the number of the last one, and quote, the one that is open in it.
# Nothing of it is expanded or run.
_opnix_words() {
    local line="${COMP_LINE:0:COMP_POINT}" char word="" began=""
    local -i at=0
    words=() quote=""
    while ((at < ${#line})); do
        char="${line:at:1}"
        at+=1
        case "${quote:+in a quote}${char}" in
            "in a quote"*)
                if [[ "${char}" == "${quote}" ]]; then
                    quote=""
                elif [[ "${quote}" == '"' && "${char}" == "\\" && "${line:at:1}" == [\"\\\$\`] ]]; then
                    word+="${line:at:1}"
                    at+=1
                else
                    word+="${char}"
                fi
                ;;
            [[:space:]])
                [[ -z "${began}" ]] || words+=("${word}")
                word="" began=""
                continue
                ;;
            "'" | '"') quote="${char}" ;;
            "\\")
                word+="${line:at:1}"
                at+=1
                ;;
            *) word+="${char}" ;;
        esac
        began=yes
    done
    words+=("${word}")
    cword=$((${#words[@]} - 1))
}

# Names of units, credentials and secrets come from the configuration.
_opnix_with_names() {
    local -a words
    local cword quote
    _opnix_words
    local current="${words[cword]}" previous=""
    ((cword == 0)) || previous="${words[cword - 1]}"
    # Readline replaces its own piece of the word: at its separators, where they are not quoted, it begins anew.
    local before="${current%"$2"}"
    [[ "${current}" == *"$2" ]] || before=""
    _opnix_options "$1"
    [[ -z "${before}" ]] || COMPREPLY=("${COMPREPLY[@]#"${before}"}")
    local word kind="" skip="" unit="" count=0 name
    case "${words[1]}" in
        explain | status | refresh) ;;
        *) return 0 ;;
    esac
    ((cword > 1)) && [[ "${current}" != -* ]] || return 0
    for word in "${words[@]:2:cword-2}"; do
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
    case "${words[1]},${count}" in
        explain,0 | status,0) kind=units ;;
        explain,1) kind=credentials ;;
        refresh,*) kind=secrets ;;
        *) return 0 ;;
    esac
    [[ "${kind}" == credentials ]] || unit=""
    COMPREPLY=()
    while IFS= read -r name; do
        [[ "${name}" != "${current}"* ]] || COMPREPLY+=("$(_opnix_quoted "${name#"${before}"}")")
    done < <("$1" __complete "${kind}" ${unit:+"${unit}"} 2>/dev/null)
    # Else hosts are offered after an `@`.
    ((${#COMPREPLY[@]} > 0)) || [[ "${current}" != *@* ]] || compopt +o bashdefault +o default 2>/dev/null
    return 0
}

# What was generated, of whole words.
_opnix_options() {
    local -a COMP_WORDS=("${words[@]}")
    local COMP_CWORD="${cword}"
    _opnix "$1" "${current}" "${previous}"
}

# So that the shell reads the name, and runs nothing of it: as it must be within the quote that is open. Readline closes that,
# but not behind the same character: there it is closed before.
_opnix_quoted() {
    local name="$1"
    case "${quote}" in
        "'")
            name="${name//\'/\'\\\'\'}"
            [[ "${name}" != *"'" ]] || name="${name%"'"}"
            ;;
        '"')
            name="${name//\\/\\\\}"
            name="${name//\"/\\\"}"
            name="${name//\$/\\\$}"
            name="${name//\`/\\\`}"
            [[ "${name}" != *'"' ]] || name="${name%??}\"\\\""
            ;;
        *) printf -v name '%q' "${name}" ;;
    esac
    printf '%s' "${name}"
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _opnix_with_names -o nosort -o bashdefault -o default opnix
else
    complete -F _opnix_with_names -o bashdefault -o default opnix
fi
