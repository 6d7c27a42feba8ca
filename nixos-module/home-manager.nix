# The home-manager module: the same for the units of one user, by a service of that user's own.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.programs.onepassword-secrets;
  entry = import ./entry.nix { inherit lib; };
  # In user units %t is $XDG_RUNTIME_DIR.
  socket = "%t/opnix/creds.sock";
  # Written in memory, and linked to from where OpNix would have put them.
  directory = "/run/secrets";
  absolute = path: if lib.hasPrefix "/" path then path else "${config.home.homeDirectory}/${path}";
  linked = name: secret: secret // {
    path = name;
    symlinks = secret.symlinks ++ [ (absolute (if secret.path == null then name else secret.path)) ];
  };
  services = lib.mapAttrs (_: credentials: {
    onepassword = { environment = { }; restartOnChange = false; inherit credentials; };
  }) cfg.units;
  mapping = import ./mapping.nix {
    inherit lib services;
    outputDir = directory;
    cfg = cfg // {
      secrets = lib.mapAttrs linked cfg.secrets;
      templates = lib.mapAttrs linked cfg.templates;
    };
  };
  json = (pkgs.formats.json { }).generate "secrets.json" mapping.content;
  checked = pkgs.runCommand "opnix-secrets.json" { } ''
    ${cfg.package}/bin/opnix check --quiet --config ${json}
    cp ${json} $out
  '';
  configs = [ checked ] ++ cfg.configFiles;
in
{
  options.programs.onepassword-secrets = import ./options.nix {
    inherit lib pkgs;
    package = pkgs.callPackage ./package.nix { };
  } // {
    units = mkOption {
      type = types.attrsOf (types.attrsOf (types.coercedTo types.str (reference: { inherit reference; })
        (types.submodule { options = entry.credential; })));
      default = { };
      example = { backup.key = "op://Personal/Backup/password"; };
      description = "Credentials of your own units, by unit (without `.service`) and credential.";
    };
  };

  config = mkIf cfg.enable {
    programs.onepassword-secrets.secretPaths =
      lib.mapAttrs (name: secret: absolute (if secret.path == null then name else secret.path)) (cfg.secrets // cfg.templates);

    home.packages = [ cfg.package ];

    systemd.user.sockets.opnix = {
      Unit.Description = "Credentials from 1Password";
      Socket = {
        ListenStream = socket;
        FileDescriptorName = "creds";
        SocketMode = "0600";
        DirectoryMode = "0700";
        Backlog = 4096;
        TriggerLimitIntervalSec = 0;
      };
      Install.WantedBy = [ "sockets.target" ];
    };

    systemd.user.services = {
      opnix = {
        Unit = {
          Description = "Credentials from 1Password";
          StartLimitIntervalSec = 0;
        };
        Service = {
          Type = "notify";
          ExecStart = toString ([ "${cfg.package}/bin/opnix" "serve" "--user" "--token-file" (toString cfg.tokenFile) ]
            ++ map (file: "--config ${file}") configs);
          FileDescriptorStoreMax = 4096;
          Restart = "always";
          RestartSec = "100ms";
          UMask = "0077";
          LimitCORE = 0;
        };
      };
    } // lib.optionalAttrs (mapping.files != [ ]) {
      opnix-secrets = {
        Unit.Description = "Files with secrets from 1Password";
        Service = {
          Type = "oneshot";
          RemainAfterExit = true;
          UMask = "0077";
          ExecStart = toString ([ "${cfg.package}/bin/opnix" "secret" "-output" "%t/secrets" "-token-file" (toString cfg.tokenFile) ]
            ++ map (file: "-config ${file}") configs);
        };
        Install.WantedBy = [ "default.target" ];
      };
    } // lib.mapAttrs (_: credentials: {
      Unit = { Wants = [ "opnix.socket" ]; After = [ "opnix.socket" ]; };
      Service.LoadCredential = map (id: "${id}:${socket}") (builtins.attrNames credentials);
    }) cfg.units;
  };
}
