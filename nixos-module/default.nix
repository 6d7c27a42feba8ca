# The NixOS module: `services.onepassword-secrets`, and `systemd.services.<name>.onepassword`.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) concatMap hasPrefix hasSuffix mkIf mkOption optional optionalAttrs types;
  cfg = config.services.onepassword-secrets;

  mapping = import ./mapping.nix {
    inherit lib cfg;
    inherit (cfg) outputDir;
    inherit (config.systemd) services;
  };
  json = (pkgs.formats.json { }).generate "secrets.json" mapping.content;
  inStore = path: hasPrefix builtins.storeDir "${toString path}" || builtins.isPath path;
  # A wrong mapping fails the build, not the boot.
  checked = pkgs.runCommand "opnix-secrets.json" { } ''
    ${cfg.package}/bin/opnix check --quiet --config ${json} ${
      toString (map (file: "--config ${file}") (builtins.filter inStore cfg.configFiles))
    }
    cp ${json} $out
  '';

  entries = builtins.attrValues cfg.secrets ++ builtins.attrValues cfg.templates;
  serviceNames = entry: if builtins.isList entry.services then entry.services else builtins.attrNames entry.services;
  service = name: lib.removeSuffix ".service" name;

  # What each service reads, and does not start without. As drop-ins, because a unit that somebody misspells would
  # otherwise come to exist.
  readers = builtins.foldl'
    (found: file: builtins.foldl'
      (found: name: found // {
        ${service name} = found.${service name} or [ ] ++ optional (!(file.optional or false)) file.path;
      })
      found
      (serviceNames (file // { services = file.services or [ ]; })))
    { }
    (builtins.filter (file: !hasPrefix "environment@" file.name) mapping.files);
  dropIn = name: paths: pkgs.writeTextDir "lib/systemd/system/${name}.service.d/opnix.conf" ''
    [Unit]
    Wants=opnix-mirror.service
    After=opnix-mirror.service
    ${lib.concatMapStrings (path: "AssertPathExists=${path}\n") paths}'';

  # A start that was refused is tried again, not so often that systemd gives up. systemd takes no oneshot with this, and of a
  # unit that comes from a package it is not known here whether it is one: those are left to opnix-mirror.service.
  isRetried = unit: unit.onepassword.credentials != { }
    && unit.serviceConfig ? ExecStart && (unit.serviceConfig.Type or "simple") != "oneshot";
  isLimited = unit: (unit.unitConfig or { }) ? StartLimitIntervalSec || (unit.unitConfig or { }) ? StartLimitBurst;
  retry = name: unit: pkgs.writeTextDir "lib/systemd/system/${name}.service.d/opnix-retry.conf" ''
    ${lib.optionalString (!isLimited unit) "[Unit]\nStartLimitIntervalSec=0\n"}[Service]
    RestartForceExitStatus=243
    ${lib.optionalString (!(unit.serviceConfig ? RestartSec)) "RestartSec=5s\n"}'';

  instanceOf = name: builtins.match "([^@]+@)(.+)" name;
  isKnown = name:
    let instance = instanceOf name; in
    config.systemd.services ? ${name} || instance != null && config.systemd.services ? ${builtins.elemAt instance 0};
  named = unit: if builtins.isString unit then unit else unit.unit or "";
  unknown = lib.unique (builtins.filter (name: !isKnown name)
    (map (unit: service (lib.removeSuffix "*" (lib.removeSuffix "*.service" (named unit))))
      (builtins.filter (unit: hasSuffix ".service" (named unit)) (concatMap (entry: entry.units) entries))
    ++ map service (concatMap serviceNames entries)));

  ofUnits = lib.concatLists (lib.mapAttrsToList
    (name: unit: lib.mapAttrsToList (id: credential: { inherit name id credential; }) unit.onepassword.credentials)
    config.systemd.services);
  references = lib.mapAttrsToList (name: entry: { where = "services.onepassword-secrets.secrets.${name}"; inherit (entry) reference; }) cfg.secrets
    ++ map (one: { where = "systemd.services.${one.name}.onepassword.credentials.${one.id}"; inherit (one.credential) reference; })
      (builtins.filter (one: one.credential.reference != null) ofUnits)
    ++ lib.concatLists (lib.mapAttrsToList
      (name: unit: lib.mapAttrsToList (variable: reference: { where = "systemd.services.${name}.onepassword.environment.${variable}"; inherit reference; }) unit.onepassword.environment)
      config.systemd.services);
  paths = map (file: file.path) mapping.files;
  twice = lib.unique (builtins.filter (path: lib.count (other: other == path) paths > 1) paths);
  # "\0", 16 digits, "/unit/", the unit, "/", the credential: systemd's address holds 107 bytes.
  length = one: 1 + 16 + 6 + builtins.stringLength "${one.name}.service" + 1 + builtins.stringLength one.id;
  refreshes = lib.versionAtLeast (config.systemd.package.version or "0") "260";
  outside = builtins.filter (path: hasPrefix "/etc/" path || hasPrefix "/usr/" path) paths;
  tokenDirectory = dirOf (toString cfg.tokenFile);
  tokenIsKept = cfg.persistence.root != null && hasPrefix "${cfg.persistence.root}/" (toString cfg.tokenFile);
  # To keep one of these as a whole, with a mode of its own, would hide what else is in it: there it is the file alone.
  isShared = builtins.elem tokenDirectory [ "/" "/etc" "/home" "/opt" "/root" "/srv" "/usr" "/var" "/var/lib" ];
  isMemory = (config.fileSystems."/".fsType or "") == "tmpfs";
in
{
  options.services.onepassword-secrets = import ./options.nix {
    inherit lib pkgs;
    package = pkgs.callPackage ./package.nix { };
  } // {
    outputDir = mkOption {
      type = types.str;
      default = "/run/secrets";
      example = "/run/opnix-secrets";
      description = "Where relative paths start. Below `/run` it is memory, which opnix mounts there and nothing else may be in: beside sops-nix, name a directory of its own, such as `/run/opnix-secrets`. Elsewhere secrets would lie on the disk in plain text.";
    };
    users = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users of the group `onepassword-secrets`, which may read the token, to use `opnix env` and `opnix secret`.";
    };
    metrics.enable = lib.mkEnableOption "metrics in /run/opnix-metrics/opnix.prom, for node_exporter's textfile collector, and with systemd 262 and later for systemd-report" // { example = true; };
    persistence = {
      root = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/persist";
        description = "With impermanence: what is kept where. The token's directory and the sealed cache with its key are listed in `environment.persistence` then.";
      };
      directories = mkOption {
        type = types.listOf types.str;
        default = [ "/var/lib/private/opnix" "/var/lib/opnix-mirror" "/var/lib/systemd" "/etc/credstore.encrypted" ];
        example = [ "/var/lib/private/opnix" ];
        description = "The directories besides the token's. Leave out what is listed elsewhere: impermanence takes nothing twice.";
      };
      files = mkOption {
        type = types.listOf types.str;
        default = [ "/etc/machine-id" ];
        example = [ ];
        description = "The files, likewise. systemd's key for this machine, in /var/lib/systemd, opens for this machine-id only.";
      };
    };
  };

  options.systemd.services = mkOption {
    type = types.attrsOf (types.submodule (import ./unit.nix {
      inherit lib refreshes;
      inherit (mapping) environmentFile;
      enabled = cfg.enable;
      socket = "/run/opnix/creds.sock";
    }));
  };

  config = mkIf cfg.enable {
    services.onepassword-secrets.secretPaths =
      lib.filterAttrs (_: path: path != null) (lib.mapAttrs mapping.pathOf (cfg.secrets // cfg.templates));

    assertions = map
      (one: {
        assertion = builtins.match "op://[^/]+/[^/]+/.+" one.reference != null;
        message = ''${one.where}: "${one.reference}" is no secret reference: write op://vault/item/field, as "Copy Secret Reference" in 1Password gives it.'';
      })
      references
    ++ lib.mapAttrsToList
      (name: entry: {
        assertion = builtins.match "[0-7]{3,4}" entry.mode != null;
        message = ''services.onepassword-secrets: the mode "${entry.mode}" of ${name} is not 3 or 4 octal digits: write "0400".'';
      })
      (cfg.secrets // cfg.templates)
    ++ map
      (path: {
        assertion = false;
        message = "services.onepassword-secrets: two secrets or templates are to be ${path}: give one of them another `path`.";
      })
      twice
    ++ map
      (name: {
        assertion = false;
        message = ''services.onepassword-secrets: there is no systemd.services."${name}": check the name in `units` and `services`.'';
      })
      unknown
    ++ map
      (one: {
        assertion = length one <= 107;
        message = ''systemd.services.${one.name}.onepassword.credentials.${one.id}: the two names are ${toString (length one - 107)} bytes too long together, and systemd could not ask: shorten one.'';
      })
      ofUnits
    ++ map
      (one: {
        assertion = (one.credential.reference == null) != (one.credential.template == null);
        message = "systemd.services.${one.name}.onepassword.credentials.${one.id}: give a `reference` or a `template`, one of the two.";
      })
      ofUnits
    ++ lib.mapAttrsToList
      (name: unit: {
        assertion = !(unit.onepassword.restartOnChange && hasSuffix "@" name);
        message = "systemd.services.${name}.onepassword.restartOnChange: ${name} is a template: name its instances in the `services` of a template of services.onepassword-secrets.";
      })
      config.systemd.services
    ++ [
      {
        assertion = !inStore cfg.tokenFile;
        message = "services.onepassword-secrets.tokenFile: all users can read the Nix store: name a file outside of it, as a string.";
      }
      {
        assertion = !lib.hasInfix "ops_ey" (builtins.toJSON mapping.content);
        message = "services.onepassword-secrets: a token of a service account is in the configuration, which all users can read in the Nix store: put it into `tokenFile`, and revoke this one.";
      }
      {
        assertion = cfg.persistence.root == null || options.environment ? persistence;
        message = "services.onepassword-secrets.persistence.root takes the impermanence module: import it, or keep ${tokenDirectory} yourself and leave this out.";
      }
    ];
    warnings = lib.optional
      (!refreshes && builtins.any (one: one.credential.onChange == "reload") ofUnits)
      ''services.onepassword-secrets: `onChange = "reload"` gives a unit its new credential with systemd 260 and later only: before, opnix restarts it after that.''
    ++ lib.optional (isMemory && cfg.persistence.root == null && builtins.match "/(persist|nix)/.*" (toString cfg.tokenFile) == null)
      "services.onepassword-secrets: the root is in memory, and so ${toString cfg.tokenFile} is gone at reboot: set `persistence.root`, or name a file that is kept.";

    environment = {
      systemPackages = [ cfg.package ];
      etc = {
        "opnix/secrets.json".source = checked;
      } // builtins.listToAttrs (lib.imap0
        (number: file: {
          name = "opnix/secrets.d/${toString number}-${baseNameOf file}";
          value.source = file;
        })
        cfg.configFiles);
    } // optionalAttrs (options.environment ? persistence) {
      persistence = mkIf (cfg.persistence.root != null) {
        ${toString cfg.persistence.root} = {
          directories = cfg.persistence.directories
            ++ optional (!tokenIsKept && !isShared) { directory = tokenDirectory; mode = "0700"; };
          files = cfg.persistence.files ++ optional (!tokenIsKept && isShared) (toString cfg.tokenFile);
        };
      };
    };

    users.groups.onepassword-secrets.members = cfg.users;
    systemd.tmpfiles.rules = [
      # systemd insists on the mode, also where impermanence made the directory.
      "d /var/lib/private 0700 root root -"
    ] ++ optional (cfg.users != [ ]) "z ${toString cfg.tokenFile} 0640 root onepassword-secrets -";

    # The unit files are the package's; here is only what depends on the configuration.
    systemd.packages = [ cfg.package ] ++ lib.mapAttrsToList dropIn readers
      ++ lib.mapAttrsToList retry (lib.filterAttrs (_: isRetried) config.systemd.services);
    systemd.sockets.opnix.wantedBy = [ "sockets.target" ];
    systemd.sockets.opnix-control.wantedBy = [ "sockets.target" ];
    systemd.timers.opnix-metrics = mkIf cfg.metrics.enable { wantedBy = [ "timers.target" ]; };
    # systemd-creds, which opens a token that is sealed.
    systemd.services.opnix-metrics = mkIf cfg.metrics.enable { path = [ config.systemd.package ]; };
    systemd.sockets.opnix-report = mkIf
      (cfg.metrics.enable && lib.versionAtLeast (config.systemd.package.version or "0") "262")
      { wantedBy = [ "sockets.target" ]; };
    systemd.services.opnix = {
      # A stop would refuse the requests that wait; a restart hands them to the next instance.
      stopIfChanged = false;
      reloadTriggers = [ checked ] ++ cfg.configFiles;
      serviceConfig.LoadCredential = [ "token:${toString cfg.tokenFile}" ];
    };
    systemd.services.opnix-setup.stopIfChanged = false;
    systemd.services.opnix-key.stopIfChanged = false;
    systemd.services.opnix-token.stopIfChanged = false;
    systemd.services.opnix-mount.stopIfChanged = false;
    # `journalctl -x` explains what an index of systemd's own package has; systemd from 256 on makes it of another directory, too.
    systemd.services.opnix-catalog = {
      description = "Explanations of opnix's journal records";
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-journal-catalog-update.service" ];
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; RuntimeDirectory = "opnix-catalog"; };
      script = ''
        cp -f ${config.systemd.package}/lib/systemd/catalog/*.catalog ${cfg.package}/lib/systemd/catalog/*.catalog "$RUNTIME_DIRECTORY" &&
          SYSTEMD_CATALOG_SOURCES=$RUNTIME_DIRECTORY journalctl --update-catalog || echo "journalctl -x does not explain opnix's records" >&2
      '';
    };
    systemd.services.opnix-mirror = {
      wantedBy = [ "multi-user.target" ];
      # OpNix's name for it.
      aliases = [ "opnix-secrets.service" ];
      stopIfChanged = false;
      reloadTriggers = [ checked ] ++ cfg.configFiles;
      serviceConfig = {
        InaccessiblePaths = [ "-${toString cfg.tokenFile}" ];
      } // optionalAttrs (outside != [ ]) {
        ReadWritePaths = map (directory: "-${directory}") (lib.unique (map dirOf outside));
      };
    };
  };
}
