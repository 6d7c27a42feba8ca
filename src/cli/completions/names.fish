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
