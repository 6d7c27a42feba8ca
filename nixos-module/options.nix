# The options that NixOS and home-manager have in common.
{ lib, pkgs, package }:
let
  inherit (lib) mkEnableOption mkOption types;
  entry = import ./entry.nix { inherit lib; };
  setting = type: default: example: description: mkOption { inherit type default example description; };
in
{
  enable = mkEnableOption "secrets from 1Password, as credentials of units and as files in memory";

  package = mkOption {
    type = types.package;
    default = package;
    defaultText = lib.literalExpression "opnix.packages.\${system}.default";
    description = "The package with opnix, its unit files and its man pages.";
  };

  tokenFile = setting types.path "/etc/opnix-token" "/root/.config/op/token"
    "The file with the token of the service account or of the Connect server, as a string, never in the Nix store. It may be missing: what is kept is served then.";

  configFiles = setting (types.listOf types.path) [ ] (lib.literalExpression "[ ./secrets.json ]")
    "Further files in the format of `secrets.json`. They join what the options say. Relative paths in them are below `mirror_root`, in memory.";

  secrets = setting (types.attrsOf (types.submodule { options = entry.secret; })) { }
    { cloudflareToken = { reference = "op://Infrastructure Secrets/Cloudflare/token"; owner = "caddy"; services = [ "caddy" ]; }; }
    "Secrets as files in memory, and for `units` as credentials.";

  templates = setting (types.attrsOf (types.submodule { options = entry.template; })) { }
    { "opencode.env" = { template = "KEY={{ op://Vault/App/key | env }}\n"; owner = "opencode"; }; }
    "Texts with secrets in them, as files in memory, and for `units` as credentials.";

  pathTemplate = setting (types.nullOr types.str) null "{service}/{name}"
    "The path of a secret that has none: text with `{service}` for the value in its `variables` or the `defaults`, and `{name}` for its own name. What has no value is a fault.";

  defaults = setting (types.attrsOf types.str) { } { service = "web"; }
    "Values for `path` and `pathTemplate` that a secret's own `variables` override.";

  provider.serviceAccount = {
    library = mkOption {
      type = types.nullOr types.str;
      default = pkgs.callPackage ./library.nix { };
      defaultText = lib.literalExpression "\"\${pkgs.python3Packages.onepassword-sdk}/…/libop_uniffi_core.so\"";
      example = "/usr/lib/opnix/libop_uniffi_core.so";
      description = "The core library of 1Password's SDK; by default that of nixpkgs' `python3Packages.onepassword-sdk`, where there is one, and else the one that `opnix core install` put in place.";
    };
    hosts = setting (types.listOf types.str) [ ] [ "1password.example.org" ]
      "Hosts that the token may name besides those of 1password.com, 1password.ca and 1password.eu.";
  };

  provider.connect = setting
    (types.nullOr (types.submodule {
      options = {
        host = mkOption {
          type = types.str;
          example = "https://connect.example.org";
          description = "Where the server is: `https://host` or `https://host:port`.";
        };
        authority = setting (types.nullOr types.str) null "/etc/ssl/private-ca.pem"
          "Certificates in PEM of who signed the server's, if that is no public authority.";
      };
    }))
    null { host = "https://connect.example.org"; }
    "A 1Password Connect server, instead of 1Password itself.";

  cache = setting (types.nullOr (types.enum [ "sealed" "memory" "never" ])) null "memory"
    "Where values are kept: sealed on disk too, so that units start without 1Password after a reboot; in memory; or nowhere; `sealed` where it is `null`.";
  freshFor = setting (types.nullOr types.str) null "1h" "How long a value is served without asking 1Password; `15m` where it is `null`.";
  staleFor = setting (types.nullOr types.str) null "30d" "How long a value is served when 1Password cannot be asked; `7d` where it is `null`.";
  grace = setting (types.nullOr types.str) null "0s" "How long a value is served that 1Password says is gone; `1h` where it is `null`.";
  deadline = setting (types.nullOr types.str) null "2m" "How long a unit may wait for its secret before it is refused; `30s` where it is `null`.";
  shortDeadline = setting (types.nullOr types.str) null "1s" "How long it waits for 1Password when a value is at hand that would do; `3s` where it is `null`.";
  refresh = setting (types.nullOr types.str) null "never"
    "How often all values are renewed in the background, or `never`; where it is `null`, the interval of OpNix\'s `polling`, or `2h`.";
  budget = {
    hourly = setting (types.nullOr types.ints.unsigned) null 50 "Requests to 1Password within an hour; 100 where it is `null`, without limit for a Connect server.";
    daily = setting (types.nullOr types.ints.unsigned) null 100 "Requests to 1Password within a day; 200 where it is `null`, without limit for a Connect server.";
  };

  systemdIntegration = setting (types.attrsOf types.anything) { } { services = [ "caddy" ]; }
    "OpNix's settings: its `services` are restarted at every change of a file, the interval of its `polling` stands for `refresh`, the rest is accepted and checked.";

  settings = setting (types.attrsOf types.anything) { } { provider = { kind = "local"; path = "/run/vault.json"; }; }
    "Keys of `secrets.json`, as documented in configuration.md, that replace what the other options say.";

  secretPaths = mkOption {
    type = types.attrsOf types.str;
    readOnly = true;
    description = "The path of each file, by the name of its secret or template: computed.";
  };
}
