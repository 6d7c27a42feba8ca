// Gets everything from a Connect server with 1Password's JavaScript client, and reports it as JSON.

const { OnePasswordConnect } = require("@1password/connect");
const { readFileSync } = require("node:fs");

async function main() {
  const asked = JSON.parse(readFileSync(0, "utf8"));
  const client = OnePasswordConnect({ serverURL: asked.host, token: asked.token, keepAlive: true });
  const seen = {};
  for (const vault of await client.listVaults()) {
    const byName = await client.getVault(vault.name);
    if (byName.id !== vault.id) throw new Error(`another vault ${vault.name}`);
    const items = {};
    for (const listed of await client.listItems(vault.id)) {
      const item = await client.getItemById(vault.id, listed.id);
      const files = {};
      for (const file of item.files ?? []) {
        const content = await client.getFileContentStream(vault.id, item.id, file.id);
        const pieces = [];
        for await (const piece of content) pieces.push(piece);
        files[file.name] = [...Buffer.concat(pieces)];
      }
      const fields = item.fields.map((field) => [field.label, field.value]);
      (items[item.title] ??= []).push({ fields, files });
    }
    seen[vault.name] = items;
  }
  const named = await client.getItemByTitle(byId(await client.listVaults(), "Infrastructure Secrets"), "OpenAI");
  if (named.title !== "OpenAI") throw new Error("another item");
  const wrong = OnePasswordConnect({ serverURL: asked.host, token: "wrong", keepAlive: true });
  await wrong.listVaults().then(
    () => { throw new Error("a wrong token was taken"); },
    (refusal) => { if (refusal.status !== 401) throw refusal; },
  );
  console.log(JSON.stringify(seen));
}

function byId(vaults, name) {
  return vaults.find((vault) => vault.name === name).id;
}

main().catch((failure) => {
  console.error(failure);
  process.exit(1);
});
