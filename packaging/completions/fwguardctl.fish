# Completion of fwguardctl(8) for fish.

function __fwguardctl_revisions
    fwguardctl history --json 2>/dev/null | string match -ra '"revision": \d+' | string replace -r '\D+' ''
end

function __fwguardctl_no_verb
    not __fish_seen_subcommand_from check diff render status reload confirm rollback history show open drift pause resume
end

complete -c fwguardctl -f
complete -c fwguardctl -n __fwguardctl_no_verb -a check -d 'Say what is wrong with the rule files, and rehearse them'
complete -c fwguardctl -n __fwguardctl_no_verb -a diff -d 'Show what a reload would change in the kernel'
complete -c fwguardctl -n __fwguardctl_no_verb -a render -d 'Print the composed ruleset'
complete -c fwguardctl -n __fwguardctl_no_verb -a status -d 'What is in force, since when, and what is wrong'
complete -c fwguardctl -n __fwguardctl_no_verb -a reload -d 'Read the rule files now, and wait for the verdict'
complete -c fwguardctl -n __fwguardctl_no_verb -a confirm -d 'Keep what reload --confirm has put in force'
complete -c fwguardctl -n __fwguardctl_no_verb -a rollback -d 'Put an earlier revision in force'
complete -c fwguardctl -n __fwguardctl_no_verb -a history -d 'The revisions that are kept'
complete -c fwguardctl -n __fwguardctl_no_verb -a show -d 'One revision: its files, and what the kernel made of them'
complete -c fwguardctl -n __fwguardctl_no_verb -a open -d 'Accept everything now, until the next reload'
complete -c fwguardctl -n __fwguardctl_no_verb -a drift -d 'Compare the kernel with what is in force, now'
complete -c fwguardctl -n __fwguardctl_no_verb -a pause -d 'Hold repairs for a while, for work by hand'
complete -c fwguardctl -n __fwguardctl_no_verb -a resume -d 'End a pause'

complete -c fwguardctl -s h -l help -d 'Print a summary'
complete -c fwguardctl -n __fwguardctl_no_verb -l version -d 'Print the version'
complete -c fwguardctl -n 'not __fish_seen_subcommand_from check diff render' -l socket -r -F -d 'Control socket of the daemon'
complete -c fwguardctl -n 'not __fwguardctl_no_verb' -l json -d 'Print one JSON document'
complete -c fwguardctl -n 'not __fwguardctl_no_verb' -l config -r -F -d 'Settings file'
complete -c fwguardctl -n 'not __fwguardctl_no_verb' -l rules-dir -x -a '(__fish_complete_directories)' -d 'Rules directory'
complete -c fwguardctl -n 'not __fwguardctl_no_verb' -l backend -x -a 'auto nft legacy' -d 'Half of the kernel to rehearse on'

complete -c fwguardctl -n '__fish_seen_subcommand_from check' -F
complete -c fwguardctl -n '__fish_seen_subcommand_from render' -l family -x -a '4 6' -d 'Only this family'
complete -c fwguardctl -n '__fish_seen_subcommand_from reload' -l confirm -d 'Undo it unless confirmed in time'
complete -c fwguardctl -n '__fish_seen_subcommand_from history' -l limit -x -d 'Only the newest'
complete -c fwguardctl -n '__fish_seen_subcommand_from rollback show' -a '(__fwguardctl_revisions)'
complete -c fwguardctl -n '__fish_seen_subcommand_from pause' -a '5m 15m 1h'
