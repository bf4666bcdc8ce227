# Completion of fwguardd(8) for fish.

complete -c fwguardd -f
complete -c fwguardd -s h -l help -d 'Print a summary'
complete -c fwguardd -l version -d 'Print the version'
complete -c fwguardd -l config -r -F -d 'Settings file'
complete -c fwguardd -l rules-dir -x -a '(__fish_complete_directories)' -d 'Rules directory'
complete -c fwguardd -l state-dir -x -a '(__fish_complete_directories)' -d 'Directory of the revisions'
complete -c fwguardd -l runtime-dir -x -a '(__fish_complete_directories)' -d 'Directory of the lock and the control socket'
complete -c fwguardd -l backend -x -a 'auto nft legacy' -d 'iptables backend to write to'
complete -c fwguardd -l log -x -a 'auto journal json console' -d 'Where events are written, and in which form'
complete -c fwguardd -l hold-files -d 'Do not start: hold the rule files for the next start'
