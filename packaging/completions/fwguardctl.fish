# Completion of fwguardctl(8) for fish.

function __fwguardctl_revisions
    fwguardctl history --json 2>/dev/null | string match -ra '"revision": \d+' | string replace -r '\D+' ''
end

function __fwguardctl_no_verb
    not __fish_seen_subcommand_from check import diff render doctor status reload confirm rollback history show open hold drift pause resume adopt deploy edit denials
end

function __fwguardctl_settings_verb
    not __fwguardctl_no_verb; and not __fish_seen_subcommand_from import
end

function __fwguardctl_rules_verb
    __fish_seen_subcommand_from check diff render doctor rollback deploy edit
end

complete -c fwguardctl -f
complete -c fwguardctl -n __fwguardctl_no_verb -a check -d 'Check the rule files and load them in a temporary network namespace'
complete -c fwguardctl -n __fwguardctl_no_verb -a import -d 'Write rule files from those of other programs'
complete -c fwguardctl -n __fwguardctl_no_verb -a diff -d 'Show what a reload would change in the kernel, or how two revisions differ'
complete -c fwguardctl -n __fwguardctl_no_verb -a render -d 'Print the composed ruleset for iptables-restore'
complete -c fwguardctl -n __fwguardctl_no_verb -a doctor -d 'Report what on this host interferes with fwguardd'
complete -c fwguardctl -n __fwguardctl_no_verb -a status -d 'Show what is in force, since when, and what is wrong'
complete -c fwguardctl -n __fwguardctl_no_verb -a reload -d 'Apply the rule files now, and wait for the result'
complete -c fwguardctl -n __fwguardctl_no_verb -a confirm -d 'Keep the revision that reload --confirm has put in force'
complete -c fwguardctl -n __fwguardctl_no_verb -a rollback -d 'Put an earlier revision in force'
complete -c fwguardctl -n __fwguardctl_no_verb -a history -d 'List the revisions that are kept'
complete -c fwguardctl -n __fwguardctl_no_verb -a show -d 'Show one revision: its files, and its rules as iptables-save prints them'
complete -c fwguardctl -n __fwguardctl_no_verb -a open -d 'Accept everything now, for a time or until the next reload'
complete -c fwguardctl -n __fwguardctl_no_verb -a hold -d 'Do not apply changed rule files until the next reload'
complete -c fwguardctl -n __fwguardctl_no_verb -a drift -d 'Compare the kernel with the revision in force now'
complete -c fwguardctl -n __fwguardctl_no_verb -a pause -d 'Do not repair drift for a while, to work on the firewall by hand'
complete -c fwguardctl -n __fwguardctl_no_verb -a resume -d 'Repair drift again, after a pause or a fight'
complete -c fwguardctl -n __fwguardctl_no_verb -a adopt -d 'List rules of other programs in owned tables, and keep or remove them'
complete -c fwguardctl -n __fwguardctl_no_verb -a deploy -d 'Replace the rules directory by a copy of another one, and apply it'
complete -c fwguardctl -n __fwguardctl_no_verb -a edit -d 'Edit a copy of the rule files, check it, and apply it with a confirmation'
complete -c fwguardctl -n __fwguardctl_no_verb -a denials -d 'What the kernel denied, now or in old log lines'

complete -c fwguardctl -s h -l help -d 'Print a summary'
complete -c fwguardctl -n __fwguardctl_no_verb -l version -d 'Print the version'
complete -c fwguardctl -n 'not __fish_seen_subcommand_from check import render doctor denials' -l socket -r -F -d 'Control socket of the daemon'
complete -c fwguardctl -n __fwguardctl_settings_verb -l json -d 'Print one JSON document'
complete -c fwguardctl -n __fwguardctl_settings_verb -l config -r -F -d 'Settings file'
complete -c fwguardctl -n __fwguardctl_rules_verb -l rules-dir -x -a '(__fish_complete_directories)' -d 'Rules directory'
complete -c fwguardctl -n __fwguardctl_rules_verb -l backend -x -a 'auto nft legacy' -d 'iptables backend to rehearse with'

complete -c fwguardctl -n '__fish_seen_subcommand_from check import' -F
complete -c fwguardctl -n '__fish_seen_subcommand_from import' -s o -l output -x -a '(__fish_complete_directories)' -d 'Directory for the rule files'
complete -c fwguardctl -n '__fish_seen_subcommand_from check' -l static -d 'Do not rehearse'
complete -c fwguardctl -n '__fish_seen_subcommand_from check' -l format -x -a 'text json github sarif' -d 'Output format'
complete -c fwguardctl -n '__fish_seen_subcommand_from render' -l family -x -a '4 6' -d 'Only this family'
complete -c fwguardctl -n '__fish_seen_subcommand_from rollback' -l restore-files -d 'Write the rule files of the revision'
complete -c fwguardctl -n '__fish_seen_subcommand_from deploy' -x -a '(__fish_complete_directories)'
complete -c fwguardctl -n '__fish_seen_subcommand_from deploy' -l dry-run -d 'Only check and show what would change'
complete -c fwguardctl -n '__fish_seen_subcommand_from edit' -l confirm -x -a '30s 60s 5m' -d 'Roll back unless confirmed in time'
complete -c fwguardctl -n '__fish_seen_subcommand_from reload' -l take-over -d 'With the first load remove rules of other programs'
complete -c fwguardctl -n '__fish_seen_subcommand_from adopt' -l all -d 'All rules to be decided about'
complete -c fwguardctl -n '__fish_seen_subcommand_from adopt' -l remove -d 'Remove the rules'
complete -c fwguardctl -n '__fish_seen_subcommand_from reload deploy' -l confirm -d 'Roll back unless confirmed in time'
complete -c fwguardctl -n '__fish_seen_subcommand_from open' -l for -x -a '5m 15m 1h' -d 'For this time'
complete -c fwguardctl -n '__fish_seen_subcommand_from history' -l limit -x -d 'Only the newest'
complete -c fwguardctl -n '__fish_seen_subcommand_from diff rollback show' -a '(__fwguardctl_revisions)'
complete -c fwguardctl -n '__fish_seen_subcommand_from pause' -a '5m 15m 1h'

set -l denials '__fish_seen_subcommand_from denials'
complete -c fwguardctl -n $denials -s f -l follow -d 'Follow new denials'
complete -c fwguardctl -n $denials -l since -x -a 'yesterday today -1h -15m' -d 'From this time on'
complete -c fwguardctl -n $denials -l until -x -a 'yesterday today -1h -15m' -d 'Until this time'
complete -c fwguardctl -n $denials -l src -x -d 'From this address or network'
complete -c fwguardctl -n $denials -l dport -x -d 'To this port or range'
complete -c fwguardctl -n $denials -l top -d 'Sources, ports and rules with the most packets'
complete -c fwguardctl -n $denials -l format -x -a 'table ecs' -d 'Output format'
complete -c fwguardctl -n $denials -l read -r -F -d 'Read an old kernel log'
complete -c fwguardctl -n $denials -l journal-dir -x -a '(__fish_complete_directories)' -d 'Read the journal in this directory'
complete -c fwguardctl -n $denials -l prefix -x -d 'Look for this prefix'
complete -c fwguardctl -n $denials -l any-prefix -d 'Show LOG lines with any prefix'
