"""The verb `report`: what happened to the firewall of a host within some days, for a person.

`gathering` asks the daemon and the journal, and gives `facts`. `outline` is what a report consists of: `answers`,
`happenings`, `knocks` and `holdings` make its sections of the facts. `text_form`, `html_form` and `document` print it.
"""
