# The module on a whole NixOS: `nix build .#checks.x86_64-linux.vm`, which takes KVM and a cache of binary packages.
# The secrets come from a file (provider `local`), because a virtual machine has no 1Password.
{ module }:
{
  name = "opnix";
  nodes.machine = { pkgs, ... }: {
    imports = [ module ];
    services.onepassword-secrets = {
      enable = true;
      settings.provider = { kind = "local"; path = "vault.json"; };
      secrets.web = { reference = "op://Vault/App/token"; mode = "0400"; services = [ "reader" ]; };
    };
    systemd.services.opnix.serviceConfig.LoadCredential = [ "vault.json:/etc/vault.json" ];
    environment.etc."vault.json" = {
      mode = "0600";
      text = builtins.toJSON {
        vaults = [ { name = "Vault"; items = [ { title = "App"; fields = [ { label = "token"; value = "made-up"; } ]; } ]; } ];
      };
    };
    systemd.services.consumer = {
      wantedBy = [ "multi-user.target" ];
      onepassword.credentials.token = "op://Vault/App/token";
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; DynamicUser = true; };
      script = ''test "$(cat $CREDENTIALS_DIRECTORY/token)" = made-up'';
    };
    systemd.services.reader = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
      script = "test \"$(cat /run/secrets/web)\" = made-up";
    };
  };
  testScript = ''
    machine.wait_for_unit("consumer.service")
    machine.wait_for_unit("reader.service")
    machine.succeed("test $(stat -c %a /run/secrets/web) = 400")
    machine.fail("grep -r made-up /var/lib/private/opnix")
    machine.succeed("opnix check --units /etc/systemd/system")
    machine.succeed("opnix status")
    machine.shutdown()
    machine.wait_for_unit("consumer.service")
  '';
}
