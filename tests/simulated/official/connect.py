"""Gets everything from a Connect server with 1Password's Python client, and reports it as JSON."""

import json
import sys

import onepasswordconnectsdk


def main():
    asked = json.load(sys.stdin)
    client = onepasswordconnectsdk.client.new_client(asked["host"], asked["token"])
    seen = {}
    for vault in client.get_vaults():
        by_name = client.get_vault_by_title(vault.name)
        assert by_name.id == vault.id, vault.name
        items = {}
        for listed in client.get_items(vault.id):
            item = client.get_item_by_id(listed.id, vault.id)
            files = {}
            for file in client.get_files(item.id, vault.id):
                files[file.name] = list(client.get_file_content(file.id, item.id, vault.id))
            fields = [[field.label, field.value] for field in item.fields]
            items.setdefault(item.title, []).append({"fields": fields, "files": files})
        seen[vault.name] = items
    named = client.get_item("OpenAI", "Infrastructure Secrets")
    assert named.title == "OpenAI"
    try:
        onepasswordconnectsdk.client.new_client(asked["host"], "wrong").get_vaults()
        raise SystemExit("a wrong token was taken")
    except onepasswordconnectsdk.client.FailedToRetrieveVaultException:
        pass
    print(json.dumps(seen))


main()
