# `systemd.services.<name>.onepassword`: a unit's secrets, said at the unit.
{ lib, socket, environmentFile, readers, refreshes, enabled }:
{ name, config, ... }:
let
  inherit (lib) mkIf mkOption types;
  entry = import ./entry.nix { inherit lib; };
  cfg = config.onepassword;
  reloads = credential: builtins.elem credential.onChange [ "reload" "reload-or-restart" ];
  credentials = builtins.attrValues cfg.credentials;
  hasEnvironment = cfg.environment != { } || cfg.environmentTemplate != null;
  reads = readers ? ${name};
  # What its secrets are.
  secrets = builtins.unsafeDiscardStringContext (builtins.toJSON {
    inherit (cfg) environment environmentTemplate;
    credentials = lib.mapAttrs (_: one: { inherit (one) reference template templateFile; }) cfg.credentials;
  });
  # Not `requires`: when opnix is upgraded, that would restart the unit as well.
  wants = lib.optional (cfg.credentials != { }) "opnix.socket"
    ++ lib.optional (hasEnvironment || reads) "opnix-mirror.service";
in
{
  options.onepassword = {
    credentials = mkOption {
      type = types.attrsOf (types.coercedTo types.str (reference: { inherit reference; })
        (types.submodule entry.credential));
      default = { };
      example = { openai-api-key = "op://Infrastructure Secrets/OpenAI/credential"; };
      description = ''
        The unit's credentials, by the name of the file in `$CREDENTIALS_DIRECTORY`: a secret reference, or a set. The
        unit gets the whole right secret, or does not start; no other unit gets it from this line.
      '';
    };
    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { OPENAI_API_KEY = "op://Infrastructure Secrets/OpenAI/credential"; };
      description = ''
        Environment variables with secrets, by secret reference, for software that reads nothing else: through an
        `EnvironmentFile=` in memory that only the service manager can read. A credential is safer.
      '';
    };
    environmentTemplate = mkOption {
      type = types.nullOr types.lines;
      default = null;
      example = "PORT=8080\nDATABASE_URL=postgres://app:{{ op://Vault/Database/password | url }}@db/app\n";
      description = ''
        The text of such an `EnvironmentFile=`, after the lines of `environment`: with `{{ op://vault/item/field | env }}`
        where a secret goes.
      '';
    };
    restartOnChange = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Restart the unit when a secret of `environment` or `environmentTemplate` changes; it cannot see the new one otherwise.";
    };
  };

  config = mkIf enabled {
    inherit wants;
    after = wants;
    # It does not start without the files that it reads.
    unitConfig = lib.optionalAttrs (reads && readers.${name} != [ ]) { AssertPathExists = readers.${name}; }
      # A switch restarts a unit whose text differs, and another reference alone would leave it the same.
      // lib.optionalAttrs (cfg.credentials != { } || hasEnvironment) { X-Opnix-Secrets = builtins.hashString "sha256" secrets; };
    serviceConfig = lib.optionalAttrs (cfg.credentials != { }) {
      LoadCredential = map (id: "${id}:${socket}") (builtins.attrNames cfg.credentials);
    } // lib.optionalAttrs (refreshes && builtins.any reloads credentials) {
      RefreshOnReload = "credentials";
    } // lib.optionalAttrs hasEnvironment {
      # No "-" before it: without its file the unit does not start.
      EnvironmentFile = [ (environmentFile name) ];
    };
  };
}
